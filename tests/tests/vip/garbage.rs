//! A flood of frames that break the rules of their protocol, during a failover.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::frames::FrameSender;
use lab::keepalived::Spec;
use lab::scrape::Samples;
use lab::wait_until;
use lab::witness::{ensure_precise, measured};

use crate::service::{check_end, serve};
use crate::stage::{BYSTANDER, LIMIT, Observer, Stage};

/// Frames a second.
const RATE: u32 = 10_000;
const FLOOD: Duration = Duration::from_secs(10);
/// How far the agent's times may be from tcpdump's, in seconds: the flood keeps the processors busy between the two.
const ERROR: f64 = 0.02;

/// An ARP packet that ends in its middle, and a VRRP advertisement of another virtual router with a wrong checksum.
fn garbage() -> [Vec<u8>; 2] {
    let source = [0x02, 0, 0, 0, 0x99, 0x99];
    let arp = [&[0xff; 6][..], &source, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 3]].concat();
    let mut ip = vec![0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0, 192, 168, 56, 99, 224, 0, 0, 18];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    let advert = [0x31, 99, 200, 1, 0, 10, 0xde, 0xad, 192, 168, 56, 77];
    let group = [1, 0, 0x5e, 0, 0, 18];
    let vrrp = [&group[..], &source, &[8, 0], &ip, &advert].concat();
    [arp, vrrp]
}

/// What the agent said of bad frames, and of those that it missed.
fn told(page: &Samples) -> Result<(u64, u64)> {
    let malformed = page.sum("leadline_tap_malformed_frames_total", |_| true);
    let lost = page.count("leadline_events_lost_total", &[("source", "tap")]);
    Ok((malformed.context("no count of malformed frames")?, lost.context("no count of lost frames")?))
}

#[test]
fn a_failover_is_exact_under_a_flood_of_garbage() -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let _services = serve(&lab)?;
        let mut stage = Stage::new(&lab, &Spec::default())?;
        let sender = FrameSender::open(lab.node(BYSTANDER)?, "eth0")?;
        let before: Vec<(u64, u64)> =
            stage.observers.iter().map(|observer| told(&observer.agent.scrape()?)).collect::<Result<_>>()?;
        let sent = AtomicU64::new(0);
        let start = Instant::now();
        thread::scope(|scope| -> Result<()> {
            let flood = scope.spawn(|| -> Result<()> {
                let frames = garbage();
                for (number, frame) in (0..RATE * u32::try_from(FLOOD.as_secs())?).zip(frames.iter().cycle())
                {
                    let due = Duration::from_secs(1) * number / RATE;
                    thread::sleep(due.saturating_sub(start.elapsed()));
                    sender.send(frame)?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            wait_until("half of the flood", FLOOD * 6, || {
                sent.load(Ordering::Relaxed) > u64::from(RATE) * FLOOD.as_secs() / 2
            })?;
            stage.trio.daemon(1)?.terminate()?;
            flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let sent = sent.load(Ordering::Relaxed);
        println!("{sent} frames of garbage in {:?}", start.elapsed());
        let mut exact = 0;
        for (observer, before) in stage.observers.iter_mut().zip(before) {
            let agent = &observer.agent;
            let mut last = (0, 0);
            let counted = wait_until("every frame to be counted", LIMIT, || {
                last = agent.scrape().and_then(|page| told(&page)).unwrap_or_default();
                last.0.saturating_sub(before.0) + last.1.saturating_sub(before.1) == sent
            });
            println!(
                "node{}: {} malformed, {} lost",
                observer.node,
                last.0.saturating_sub(before.0),
                last.1.saturating_sub(before.1)
            );
            // A lost frame may have been one of the others that the tap copies, an advertisement among them: then the agent
            // does not know what it has missed, and says so.
            if last.1 > before.1 {
                continue;
            }
            counted?;
            let (page, moves) = observer.wait_moves(stage.vip)?;
            let moved = moves.last().context("no failover")?;
            let error = Observer::phase(&page, stage.vip, "detect")? - moved.detect.as_secs_f64();
            println!("node{}: {moved:?}, error {error:+.6} s", observer.node);
            exact += 1;
            ensure_precise(error.abs() <= ERROR, || format!("{error} s from tcpdump"))?;
            check_end(observer, stage.vip, ERROR)?;
        }
        ensure!(exact > 0, "every observer has lost frames");
        Ok(())
    })
}
