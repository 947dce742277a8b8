//! The feed against the kernel, in a network namespace of its own. Needs root; without it the tests fail.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use tokio::sync::watch;

use super::*;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const VTEP: [u8; 6] = [0xce, 0, 0, 0, 0, 2];

/// Runs `body` on a thread with a fresh network namespace, which ends with the thread.
pub(crate) fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body());
        });
    });
}

pub(crate) fn connect() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

async fn wait_for(
    receiver: &mut watch::Receiver<Arc<NetworkFacts>>,
    what: &str,
    met: impl FnMut(&Arc<NetworkFacts>) -> bool,
) -> Arc<NetworkFacts> {
    let waited = tokio::time::timeout(PATIENCE, receiver.wait_for(met)).await;
    waited.unwrap_or_else(|_| panic!("no snapshot in time with: {what}")).unwrap().clone()
}

fn has_route(facts: &NetworkFacts, prefix: &str) -> bool {
    facts.routes.iter().any(|route| route.prefix.to_string() == prefix && route.table == 254)
}

pub(crate) async fn add_flannel_device(handle: &Handle) {
    let vxlan = LinkVxlan::new("flannel.1", 1)
        .local(Ipv4Addr::new(192, 168, 56, 11))
        .port(8472)
        .learning(false)
        .mtu(1450)
        .address(vec![0xce, 0, 0, 0, 0, 1])
        .up()
        .build();
    handle.link().add(vxlan).execute().await.unwrap();
}

pub(crate) async fn add_peer(handle: &Handle, device: u32) {
    let gateway = Ipv4Addr::new(10, 42, 2, 0);
    let neighbours = handle.neighbours();
    neighbours.add(device, gateway.into()).link_layer_address(&VTEP).execute().await.unwrap();
    let endpoint: IpAddr = Ipv4Addr::new(192, 168, 56, 12).into();
    let forward = neighbours.add_bridge(device, &VTEP).flags(NeighbourFlags::Own).destination(endpoint);
    forward.execute().await.unwrap();
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 24)
        .gateway(gateway)
        .output_interface(device)
        .onlink()
        .build();
    handle.route().add(route).execute().await.unwrap();
}

pub(crate) async fn remove_endpoint(handle: &Handle, device: u32) {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = device;
    entry.header.flags = NeighbourFlags::Own;
    entry.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(VTEP.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(192, 168, 56, 12))),
    ];
    handle.neighbours().del(entry).execute().await.unwrap();
}

#[test]
fn what_flanneld_sets_up_reaches_the_snapshot_and_leaves_it() {
    in_namespace(|| async {
        let state = NetworkState::default();
        let feed = NetworkFeed::open(&state).await.unwrap();
        let mut facts = state.facts();
        tokio::spawn(feed.run());
        let handle = connect();

        add_flannel_device(&handle).await;
        let seen = wait_for(&mut facts, "flannel.1", |f| f.link_named("flannel.1").is_some()).await;
        let link = seen.link_named("flannel.1").unwrap();
        let LinkKind::Vxlan(vxlan) = &link.kind else { panic!("{:?}", link.kind) };
        assert_eq!((vxlan.id, vxlan.port, vxlan.external), (Some(1), Some(8472), false));
        assert_eq!(vxlan.local, Some(Ipv4Addr::new(192, 168, 56, 11).into()));
        assert_eq!((link.mtu, link.up, link.ethernet), (Some(1450), true, true));
        assert_eq!(link.mac.unwrap().to_string(), "ce:00:00:00:00:01");
        assert_eq!(seen.link(link.index), Some(link));

        let own: IpAddr = Ipv4Addr::new(10, 42, 1, 0).into();
        handle.address().add(link.index, own, 32).execute().await.unwrap();
        let seen = wait_for(&mut facts, "address", |f| f.addresses.iter().any(|a| a.address == own)).await;
        let address = seen.addresses.iter().find(|a| a.address == own).unwrap();
        assert_eq!((address.prefix_len, address.scope, address.device), (32, Scope::Global, link.index));

        add_peer(&handle, link.index).await;
        let seen = wait_for(&mut facts, "peer", |f| {
            has_route(f, "10.42.2.0/24") && f.fdb.len() == 1 && !f.neighbours.is_empty()
        })
        .await;
        let route = seen.routes.iter().find(|r| r.prefix.to_string() == "10.42.2.0/24").unwrap();
        assert_eq!((route.onlink, route.kind, route.dead), (true, RouteKind::Unicast, false));
        assert_eq!(
            (route.gateway, route.device),
            (Some(Ipv4Addr::new(10, 42, 2, 0).into()), Some(link.index))
        );
        assert_eq!(seen.fdb[0].destination, IpAddr::from(Ipv4Addr::new(192, 168, 56, 12)));
        assert_eq!((seen.fdb[0].mac, seen.fdb[0].permanent), (Mac(VTEP), true));
        let neighbour = seen.neighbours.iter().find(|n| n.device == link.index).unwrap();
        assert_eq!((neighbour.mac, neighbour.state), (Some(Mac(VTEP)), Resolution::Permanent));

        handle.link().del(link.index).execute().await.unwrap();
        let index = link.index;
        wait_for(&mut facts, "nothing of flannel.1", |f| {
            f.link_named("flannel.1").is_none()
                && f.fdb.is_empty()
                && !has_route(f, "10.42.2.0/24")
                && f.neighbours.iter().all(|n| n.device != index)
                && f.addresses.iter().all(|a| a.address != own)
        })
        .await;
        assert_eq!(state.resyncs(), 0);
    });
}

#[test]
fn routes_of_a_device_that_goes_down_leave_although_nobody_notifies_them() {
    in_namespace(|| async {
        let handle = connect();
        handle.link().add(LinkBridge::new("cni0").up().build()).execute().await.unwrap();
        let state = NetworkState::default();
        let feed = NetworkFeed::open(&state).await.unwrap();
        let mut facts = state.facts();
        let index = facts.borrow().link_named("cni0").unwrap().index;
        tokio::spawn(feed.run());
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(10, 42, 1, 0), 24)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        handle.route().add(route).execute().await.unwrap();
        let seen = wait_for(&mut facts, "route", |f| has_route(f, "10.42.1.0/24")).await;
        assert_eq!(seen.link(index).unwrap().kind, LinkKind::Bridge);
        handle.link().set(LinkUnspec::new_with_index(index).down().build()).execute().await.unwrap();
        let seen = wait_for(&mut facts, "no route", |f| !has_route(f, "10.42.1.0/24")).await;
        assert!(!seen.link(index).unwrap().up);
    });
}

#[test]
fn an_overrun_is_counted_and_every_table_read_again() {
    in_namespace(|| async {
        let handle = connect();
        handle.link().add(LinkBridge::new("cni0").up().build()).execute().await.unwrap();
        let state = NetworkState::default();
        let feed = NetworkFeed::open_with_buffer(&state, 4096).await.unwrap();
        let mut facts = state.facts();
        let index = facts.borrow().link_named("cni0").unwrap().index;
        // Nobody reads the subscription yet.
        for last in 1..=200 {
            let address = Ipv4Addr::new(10, 42, 1, last).into();
            handle.address().add(index, address, 24).execute().await.unwrap();
        }
        tokio::spawn(feed.run());
        wait_for(&mut facts, "200 addresses", |f| {
            f.addresses.iter().filter(|a| a.device == index && a.address.is_ipv4()).count() == 200
        })
        .await;
        assert!(state.resyncs() >= 1);
    });
}

#[test]
fn a_storm_of_changes_is_published_a_few_times_only() {
    in_namespace(|| async {
        let handle = connect();
        handle.link().add(LinkBridge::new("cni0").up().build()).execute().await.unwrap();
        let state = NetworkState::default();
        let feed = NetworkFeed::open(&state).await.unwrap();
        let mut facts = state.facts();
        let index = facts.borrow().link_named("cni0").unwrap().index;
        tokio::spawn(feed.run());
        let started = Instant::now();
        let storm = tokio::spawn(async move {
            for last in 1..=250 {
                let address = Ipv4Addr::new(10, 42, 1, last).into();
                handle.address().add(index, address, 24).execute().await.unwrap();
            }
        });
        let mut published = 0;
        while facts.borrow_and_update().addresses.iter().filter(|a| a.address.is_ipv4()).count() < 250 {
            tokio::time::timeout(PATIENCE, facts.changed()).await.expect("storm not seen").unwrap();
            published += 1;
        }
        storm.await.unwrap();
        let allowed = 2 + started.elapsed().as_millis() / PAUSE.as_millis();
        assert!(published <= allowed, "{published} snapshots, {allowed} allowed");
    });
}
