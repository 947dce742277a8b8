//! More peers than are told apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Agent, Place as _};

use crate::program::Program;
use crate::view::watched;
use crate::{PORT, host_pod, options, start_lab};

const PEERS: u32 = 300;
const SLOTS: u32 = 256;

#[test]
fn peers_beyond_the_slots_are_counted_as_such() -> Result<()> {
    let lab = start_lab(false)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    // Every address of this network is the second node.
    two.ip("route add local 10.77.0.0/16 dev lo\n")?;
    one.ip(&format!("route add 10.77.0.0/16 via {}\n", two.address(false)?))?;
    let pod = host_pod(&lab, 1, "member")?;
    let agent = Agent::start(one, &options())?;
    let _server = Program::serve(two, PORT, Duration::ZERO)?;
    let mut client = Program::client(&pod)?;
    for peer in 0..PEERS {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 0, 1).to_bits() + peer);
        client.ask(&format!("open {} E 1", SocketAddr::new(address.into(), PORT)))?;
    }
    client.ask("exchange 1")?;
    let watched = watched(&agent)?;
    assert_eq!(watched.len(), SLOTS as usize);
    assert!(watched.contains(&(PORT.to_string(), "10.77.1.0".to_owned())), "the 256th address");
    let exhausted = agent.scrape()?.count("leadline_tcp_port_slots_exhausted_total", &[]);
    assert_eq!(exhausted.context("no count")?, u64::from(PEERS - SLOTS));
    Ok(())
}
