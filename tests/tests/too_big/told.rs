//! What real routers say.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::witness::nstat;
use lab::witness::tcpdump::Capture;
use lab::{Agent, Backend, Lab, Place, PodSpec, wait_until};
use serde_json::Value;

use crate::{FULL, LIMIT, PEER, expect, others, send, start, told};

/// What the router's way onwards takes.
const NARROW: u64 = 1_400;
/// Messages of one family.
const MANY: u64 = 25;

/// Makes the switch the router between the nodes.
fn be_router(lab: &Lab, ipv6: bool) -> Result<()> {
    let (node, router) = (lab.node(1)?, lab.switch()?);
    let to = lab.node(2)?.address(ipv6)?;
    // Without redirects, which would show the node the way around the router.
    let forward = "cd /proc/sys/net; echo 1 > ipv6/conf/all/forwarding; echo 1 > ipv4/ip_forward; \
                   for i in all br0; do echo 0 > ipv4/conf/$i/send_redirects; done";
    router.run(&["sh", "-ec", forward])?;
    let heed = "for i in all eth0; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_redirects; done";
    node.run(&["sh", "-ec", heed])?;
    node.ip(&format!("route replace {to} via {} dev eth0\n", gateway(ipv6)))
}

const fn gateway(ipv6: bool) -> &'static str {
    if ipv6 { "fd56::1" } else { "192.168.56.1" }
}

/// What the router's way onwards takes from now on.
fn narrow(lab: &Lab, ipv6: bool, mtu: u64) -> Result<()> {
    let to = lab.node(2)?.address(ipv6)?;
    lab.switch()?.ip(&format!("route replace {to} dev br0 mtu lock {mtu}\n"))
}

/// The router's own count of messages over a family.
fn sent_by(router: &impl Place, ipv6: bool) -> Result<u64> {
    let name = if ipv6 { "Icmp6OutPktTooBigs" } else { "IcmpOutDestUnreachs" };
    nstat(router)?.get(name).copied().with_context(|| format!("no {name}"))
}

/// tcpdump on the uplink of the first node.
fn listen(lab: &Lab, ipv6: bool) -> Result<Capture> {
    let filter = if ipv6 { "icmp6 and ip6[40] == 2" } else { "icmp[0] == 3 and icmp[1] == 4" };
    Capture::start(lab.node(1)?, "eth0", filter)
}

/// What tcpdump has seen in the end, which it tells a little late.
fn frames(mut capture: Capture, messages: u64) -> Result<u64> {
    capture.wait_until("tcpdump to see as many", LIMIT, |frames| frames.len() as u64 >= messages)?;
    Ok(capture.stop()?.len() as u64)
}

/// The MTU of a path as the kernel of the first node knows it.
fn known(lab: &Lab, to: IpAddr) -> Result<bool> {
    Ok(lab.node(1)?.run(&["ip", "route", "get", &to.to_string()])?.contains("mtu "))
}

/// The details of the events, without the times.
fn events(agent: &Agent) -> Result<Vec<String>> {
    let text = |event: &Value| {
        let word = |(key, value): (&String, &Value)| Some(format!("{key}={}", value.as_str()?));
        let words = event["details"].as_object()?.iter().map(word).collect::<Option<Vec<_>>>()?;
        Some(format!("{} {}", event["subject"].as_str()?, words.join(" ")))
    };
    agent.events("path_mtu_told")?.iter().map(|event| text(event).context("no event")).collect()
}

fn check(ipv6: bool) -> Result<()> {
    let (lab, agent) = start(Backend::Vxlan)?;
    let (node, router) = (lab.node(1)?, lab.switch()?);
    let to = lab.node(2)?.address(ipv6)?;
    be_router(&lab, ipv6)?;
    narrow(&lab, ipv6, NARROW)?;
    let (capture, before) = (listen(&lab, ipv6)?, sent_by(router, ipv6)?);
    // Nobody serves the port: other messages of the same type, which say nothing of sizes.
    send(node, to, NARROW, 5)?;
    send(node, to, FULL, MANY)?;
    let page = expect(&agent, MANY, Some(NARROW))?;
    ensure!(known(&lab, to)?, "the kernel has heard of nothing");
    narrow(&lab, ipv6, NARROW - 20)?;
    send(node, to, FULL, 2)?;
    let last = expect(&agent, MANY + 2, Some(NARROW - 20))?;
    let (by_router, frames) = (sent_by(router, ipv6)? - before, frames(capture, MANY + 2)?);
    println!("IPv6 {ipv6}: {} messages, the router {by_router}, tcpdump {frames}", MANY + 2);
    assert_eq!([by_router, frames], [MANY + 2; 2], "of the router and of tcpdump");
    assert_eq!([others(&page), others(&last)], [[Some(0); 3]; 2]);
    let event = |before: &str, mtu| {
        format!("{PEER} {before}destination={to} mtu_bytes={mtu} router={}", gateway(ipv6))
    };
    let before = format!("before_bytes={NARROW} ");
    assert_eq!(events(&agent)?, [event("", NARROW), event(&before, NARROW - 20)]);
    drop(agent);
    lab.shutdown()
}

#[test]
fn messages_of_a_router_are_counted_with_its_mtu() -> Result<()> {
    check(false)
}

#[test]
fn messages_over_ipv6_are_counted_with_their_mtu() -> Result<()> {
    check(true)
}

/// Packets of pods that cross the underlay as they are.
#[test]
fn messages_about_packets_of_pods_are_about_the_node_of_the_other_pod() -> Result<()> {
    let (lab, agent) = start(Backend::HostGw)?;
    let router = lab.node(2)?;
    let (pod, other) = (lab.node(1)?.pod(PodSpec::new("pod"))?, router.pod(PodSpec::new("pod"))?);
    for ipv6 in [false, true] {
        let to = other.address(ipv6)?;
        router.ip(&format!("route add {to} dev cni0 mtu lock {NARROW}\n"))?;
        let (capture, before) = (listen(&lab, ipv6)?, sent_by(router, ipv6)?);
        send(&pod, to, FULL, 7)?;
        let messages = if ipv6 { 14 } else { 7 };
        let page = expect(&agent, messages, Some(NARROW))?;
        let (by_router, frames) = (sent_by(router, ipv6)? - before, frames(capture, 7)?);
        println!("IPv6 {ipv6}: 7 messages, the router {by_router}, tcpdump {frames}");
        assert_eq!((by_router, frames), (7, 7), "of the router and of tcpdump");
        assert_eq!(others(&page), [Some(0); 3]);
    }
    assert_eq!(events(&agent)?.len(), 1, "the same of another address is no news");
    drop(agent);
    lab.shutdown()
}

/// When something was first not so any more.
fn end(what: &str, is_so: impl Fn() -> bool) -> Result<Instant> {
    wait_until(what, LIMIT, || !is_so())?;
    Ok(Instant::now())
}

#[test]
fn an_mtu_is_forgotten_when_the_kernel_forgets_it_and_said_again_it_is_no_news() -> Result<()> {
    let (lab, agent) = start(Backend::Vxlan)?;
    let node = lab.node(1)?;
    for (ipv6, messages) in [(false, 1), (true, 3)] {
        let to = lab.node(2)?.address(ipv6)?;
        be_router(&lab, ipv6)?;
        narrow(&lab, ipv6, NARROW)?;
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        let file = format!("/proc/sys/net/{family}/route/mtu_expires");
        node.run(&["sh", "-ec", &format!("echo 10 > {file}")])?;
        send(node, to, FULL, 1)?;
        expect(&agent, messages, Some(NARROW))?;
        ensure!(known(&lab, to)?, "the kernel has heard of nothing");
        let ends = std::thread::scope(|scope| {
            let kernel = scope.spawn(|| end("the kernel to forget", || known(&lab, to).unwrap_or(true)));
            let agent =
                end("the agent to forget", || agent.scrape().is_ok_and(|page| told(&page).1.is_some()))?;
            let kernel = kernel.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            anyhow::Ok([agent, kernel])
        })?;
        let apart = ends[0].max(ends[1]) - ends[0].min(ends[1]);
        println!("{family}: agent and kernel forgot within {apart:?}");
        ensure!(apart < Duration::from_secs(2), "{family}: {apart:?} apart");
        send(node, to, FULL, 1)?;
        expect(&agent, messages + 1, Some(NARROW))?;
        end("the agent to forget again", || agent.scrape().is_ok_and(|page| told(&page).1.is_some()))?;
    }
    assert_eq!(events(&agent)?.len(), 1, "{:?}", events(&agent)?);
    drop(agent);
    lab.shutdown()
}
