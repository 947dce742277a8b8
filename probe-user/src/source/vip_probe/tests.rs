//! Probes of real sockets. What TLS is needed for is tested in the lab.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use super::*;

const LIMIT: Duration = Duration::from_millis(300);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn probe(address: SocketAddr, kind: ProbeKind) -> Outcome {
    Prober::new(LIMIT).unwrap().probe(address, kind).await
}

#[tokio::test]
async fn a_port_that_accepts_serves_if_that_is_all_it_must() {
    let (_listener, address) = listener();
    let outcome = probe(address, ProbeKind::Tcp).await;
    assert_eq!((outcome.verdict, outcome.tls), (Verdict::Ok, None));
    assert!(outcome.connect.is_some_and(|time| time < LIMIT));
}

#[tokio::test]
async fn nobody_there_refuses() {
    let (listener, address) = listener();
    drop(listener);
    let outcome = probe(address, ProbeKind::Https).await;
    assert_eq!((outcome.verdict, outcome.connect), (Verdict::Refused, None));
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_what_was_seen_stays() {
    let (_listener, address) = listener();
    let begun = Instant::now();
    let outcome = probe(address, ProbeKind::Https).await;
    assert_eq!((outcome.verdict, outcome.tls), (Verdict::Timeout, None));
    assert!(outcome.connect.is_some() && begun.elapsed() >= LIMIT);
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_from_what_does_not_speak() {
    let (listener, address) = listener();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Until the other end has gone, so that it is not the end that is seen.
        while io::Read::read(&mut stream, &mut [0; 512]).is_ok_and(|count| count > 0) {}
    });
    let outcome = probe(address, ProbeKind::Tls).await;
    server.join().unwrap();
    assert_eq!((outcome.verdict, outcome.not_after), (Verdict::TlsFailed, None));
}

#[tokio::test]
async fn an_end_without_an_answer_breaks_the_connection() {
    let (listener, address) = listener();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // What was not read would make the kernel reset.
        io::Read::read(&mut stream, &mut [0; 4_096]).unwrap()
    });
    assert_eq!(probe(address, ProbeKind::Tls).await.verdict, Verdict::Reset);
    assert!(server.join().unwrap() > 0);
}

#[test]
fn only_some_statuses_are_those_of_a_server_that_serves() {
    for status in [200, 401, 403] {
        assert_eq!(of_status(status), Ok(()), "{status}");
    }
    for status in [100, 204, 301, 404, 429, 500, 503] {
        assert_eq!(of_status(status), Err(Verdict::HttpStatus), "{status}");
    }
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n", Ok(200)),
        ("HTTP/1.1 30", Err(Verdict::HttpFailed)),
        ("220 mail\r\n", Err(Verdict::HttpFailed)),
        ("", Err(Verdict::Reset)),
    ] {
        let (mut here, mut there) = tokio::io::duplex(4_096);
        tokio::io::AsyncWriteExt::write_all(&mut there, answer.as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut there).await.unwrap();
        let status = ask(&mut here, "192.0.2.1:6443".parse().unwrap()).await;
        let status = status.map_err(|error| Verdict::of_io(&error, Verdict::HttpFailed));
        assert_eq!(status, expected, "{answer}");
    }
}

#[test]
fn errors_of_the_kernel_have_their_verdicts() {
    let of = |number: i32| Verdict::of_io(&io::Error::from_raw_os_error(number), Verdict::LocalError);
    for (number, verdict) in [
        (libc::ECONNREFUSED, Verdict::Refused),
        (libc::ECONNRESET, Verdict::Reset),
        (libc::EPIPE, Verdict::Reset),
        (libc::EHOSTUNREACH, Verdict::Unreachable),
        (libc::ENETUNREACH, Verdict::Unreachable),
        (libc::ETIMEDOUT, Verdict::Timeout),
        (libc::EMFILE, Verdict::LocalError),
        (libc::EADDRNOTAVAIL, Verdict::LocalError),
        (libc::EPERM, Verdict::LocalError),
    ] {
        assert_eq!(of(number), verdict, "{number}");
    }
}
