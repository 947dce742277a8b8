//! The tailnet of the lab itself.

use anyhow::Result;
use lab::{Lab, LabOptions, Tailnet, tailnet};

#[test]
fn two_nodes_reach_each_other_directly_and_through_the_relay_where_udp_is_blocked() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: None })?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let _traffic = tailnet::traffic(one, two)?;
    let current = |wanted: &'static str| move |peer: &serde_json::Value| peer["CurAddr"] == wanted;
    let wait = |what: &str, holds: &dyn Fn(&serde_json::Value) -> bool| {
        tailnet.wait_status(one, what, |status| {
            let peers = status["Peer"].as_object();
            peers.is_some_and(|peers| peers.values().any(|peer| peer["HostName"] == "node2" && holds(peer)))
        })
    };
    wait("to send directly", &current("192.168.56.12:41641"))?;
    let block = tailnet.block_udp(one, two)?;
    wait("to send through the relay", &|peer| peer["CurAddr"] == "" && peer["Active"] == true)?;
    assert!(block.counted()? > 0);
    drop(block);
    wait("to send directly again", &current("192.168.56.12:41641"))
}
