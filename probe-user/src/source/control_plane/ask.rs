//! One component, asked about its health and then about its readiness. Not at the same time: an API server asks its
//! store for one question after the other, and gives it two seconds for `/livez` and twice two for `/readyz`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::checks::{self, Checks};
use super::{Component, Failure, Outcome, Report, Target};
use crate::source::fetch::{FetchError, Response, converse};
use crate::source::vip_probe::tls;

/// No list of checks is longer.
const LONGEST: usize = 1 << 16;

/// Asks components.
#[derive(Clone)]
pub struct Asker {
    connector: TlsConnector,
    patience: Duration,
}

/// What one question has brought. `Unasked`: this machine could not ask, which says nothing about the component.
enum Reply {
    Answer(Response, Duration),
    Failure(Failure),
    Unasked,
}

impl Asker {
    /// An asker whose questions have this long for everything each, that about readiness twice as long.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn new(patience: Duration) -> Result<Self, rustls::Error> {
        Ok(Self { connector: TlsConnector::from(Arc::new(tls::config(None)?)), patience })
    }

    /// Asks a component; `is_old` says whether it has only `/healthz`, and is learned here. Nothing where this machine
    /// could not ask.
    pub async fn ask(&self, target: &Target, is_old: &mut bool) -> Option<Report> {
        let has_both = matches!(target.component, Component::ApiServer | Component::Scheduler);
        if has_both && !*is_old {
            let health = self.put(target, "/livez", self.patience).await;
            // Who does not answer is not waited for again.
            if let Reply::Failure(failure) = health {
                return report(health, Some(Reply::Failure(failure)));
            }
            if !is_of_old(target.component, &health) {
                let readiness = self.put(target, "/readyz?verbose", self.patience * 2).await;
                return report(health, Some(readiness));
            }
        }
        let health = self.put(target, "/healthz?verbose", self.patience).await;
        // Who comes back may be a newer one.
        *is_old = has_both && matches!(health, Reply::Answer(..));
        report(health, None)
    }

    async fn put(&self, target: &Target, path: &str, patience: Duration) -> Reply {
        let begun = Instant::now();
        match timeout(patience, self.exchange(target, path)).await {
            Err(_) => Reply::Failure(Failure::Late),
            Ok(Err(Some(failure))) => Reply::Failure(failure),
            Ok(Err(None)) => Reply::Unasked,
            Ok(Ok(response)) => Reply::Answer(response, begun.elapsed()),
        }
    }

    async fn exchange(&self, target: &Target, path: &str) -> Result<Response, Option<Failure>> {
        let stream = connect(target).await?;
        let authority = target.address.to_string();
        let answer = if target.component.is_tls() {
            // An address is no name: no SNI is sent.
            let stream = self.connector.connect(target.address.ip().into(), stream).await;
            let stream = stream.map_err(|error| of_io(&error).or(Some(Failure::Tls)))?;
            converse(stream, &authority, path, LONGEST).await
        } else {
            converse(stream, &authority, path, LONGEST).await
        };
        answer.map_err(|error| Some(of_fetch(&error)))
    }
}

async fn connect(target: &Target) -> Result<TcpStream, Option<Failure>> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|_local| None)?;
    // Several questions a second must not leave connections in TIME_WAIT.
    socket.set_zero_linger().map_err(|_local| None)?;
    socket.set_nodelay(true).map_err(|_local| None)?;
    socket.connect(target.address).await.map_err(|error| of_io(&error))
}

/// An API server before 1.16 does not know the path; a scheduler of that time keeps strangers out of what it does not
/// know.
fn is_of_old(component: Component, health: &Reply) -> bool {
    let Reply::Answer(response, _) = health else { return false };
    match component {
        Component::Scheduler => matches!(response.status, 401 | 403 | 404),
        _ => response.status == 404,
    }
}

fn report(health: Reply, readiness: Option<Reply>) -> Option<Report> {
    let (health, took, first) = read(health)?;
    let (readiness, second) = match readiness {
        None => (None, None),
        Some(reply) => {
            let (readiness, _, body) = read(reply)?;
            (Some(readiness), Some(body))
        }
    };
    let body = second.as_ref().unwrap_or(&first);
    Some(Report {
        health,
        readiness,
        checks: body.checks.clone(),
        took,
        is_kubernetes: first.is_kubernetes || body.is_kubernetes,
        health_checks: first.checks,
    })
}

/// What the body of an answer says.
#[derive(Default)]
struct Body {
    checks: Option<Checks>,
    is_kubernetes: bool,
}

fn read(reply: Reply) -> Option<(Outcome, Option<Duration>, Body)> {
    match reply {
        Reply::Unasked => None,
        Reply::Failure(failure) => Some((Err(failure), None, Body::default())),
        Reply::Answer(response, took) => {
            let outcome = match response.status {
                200 => Ok(()),
                401 | 403 => Err(Failure::Forbidden),
                _ => Err(Failure::Status),
            };
            let text = String::from_utf8_lossy(&response.body);
            let checks = checks::parse(&text);
            let is_word = (text.trim() == "ok" && outcome.is_ok())
                || (text.contains("\"kind\":\"Status\"") || text.contains("\"kind\": \"Status\""));
            let is_kubernetes = checks.is_some() || is_word;
            Some((outcome, Some(took), Body { checks, is_kubernetes }))
        }
    }
}

/// What an error of the connection says of the other end; nothing of one that is this machine's.
fn of_io(error: &io::Error) -> Option<Failure> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Failure::Refused),
        io::ErrorKind::TimedOut => Some(Failure::Late),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Failure::Unreachable),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Failure::Reset),
        _ => None,
    }
}

fn of_fetch(error: &FetchError) -> Failure {
    match error {
        FetchError::Refused => Failure::Refused,
        FetchError::Late => Failure::Late,
        FetchError::TooLong | FetchError::NoHttp => Failure::Http,
        FetchError::Truncated => Failure::Reset,
        FetchError::Io(error) => of_io(error).unwrap_or(Failure::Tls),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn answer(status: u16, body: &str) -> Reply {
        let body = body.as_bytes().to_vec();
        Reply::Answer(Response { status, body }, Duration::from_millis(3))
    }

    #[test]
    fn an_answer_says_whether_it_lives_and_is_ready() {
        let failing = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        let unready = report(answer(200, "ok"), Some(answer(500, failing))).unwrap();
        assert_eq!((unready.is_alive(), unready.is_ready()), (true, Some(false)));
        assert_eq!(unready.checks.unwrap().get("etcd"), Some(&false));
        assert_eq!(unready.took, Some(Duration::from_millis(3)));
        let forbidden = report(answer(401, "{\"kind\":\"Status\"}"), Some(answer(401, ""))).unwrap();
        assert_eq!((forbidden.is_alive(), forbidden.is_ready()), (true, None));
        assert!(forbidden.is_kubernetes && forbidden.checks.is_none());
        let kubelet =
            report(answer(200, "[+]ping ok\n[+]syncloop ok\nhealthz check passed\n"), None).unwrap();
        assert_eq!((kubelet.is_alive(), kubelet.is_ready()), (true, None));
        assert_eq!(kubelet.checks.unwrap().len(), 2);
    }

    #[test]
    fn somebody_else_is_not_kubernetes() {
        for (status, body) in [(200, "<html>"), (404, "not found"), (403, "Forbidden"), (500, "ok")] {
            assert!(!report(answer(status, body), None).unwrap().is_kubernetes, "{status} {body}");
        }
    }

    #[test]
    fn what_this_machine_could_not_ask_says_nothing() {
        assert!(report(Reply::Unasked, None).is_none());
        assert!(report(answer(200, "ok"), Some(Reply::Unasked)).is_none());
        assert_eq!(of_io(&io::Error::other("no file descriptors")), None);
    }

    #[test]
    fn an_older_one_is_known_by_its_answer() {
        assert!(is_of_old(Component::Scheduler, &answer(403, "")));
        assert!(!is_of_old(Component::ApiServer, &answer(403, "")));
        assert!(is_of_old(Component::ApiServer, &answer(404, "")));
        assert!(!is_of_old(Component::Scheduler, &Reply::Failure(Failure::Refused)));
    }

    /// A server that answers each request with a body of its own, and the target that it is.
    async fn serve(reply: &'static [u8]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { component: Component::Kubelet, address: listener.local_addr().unwrap() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1_024];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(reply).await);
            }
        });
        target
    }

    #[tokio::test]
    async fn what_answers_strangely_is_told_apart() {
        let asker = Asker::new(Duration::from_millis(500)).unwrap();
        let mut is_old = false;
        let cases: [(&[u8], Outcome); 4] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
            (b"HTTP/1.1 500 No\r\n\r\n[-]syncloop failed: x\n", Err(Failure::Status)),
            (b"SSH-2.0-OpenSSH\r\n\r\n", Err(Failure::Http)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Err(Failure::Reset)),
        ];
        for (reply, expected) in cases {
            let target = serve(reply).await;
            assert_eq!(asker.ask(&target, &mut is_old).await.unwrap().health, expected);
            // The same where TLS is expected.
            let target = Target { component: Component::ControllerManager, ..target };
            assert_eq!(asker.ask(&target, &mut is_old).await.unwrap().health, Err(Failure::Tls));
        }
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { component: Component::ApiServer, address: silent.local_addr().unwrap() };
        let report = asker.ask(&target, &mut is_old).await.unwrap();
        assert_eq!((report.health, report.readiness), (Err(Failure::Late), Some(Err(Failure::Late))));
        drop(silent);
        let report = asker.ask(&target, &mut is_old).await.unwrap();
        assert_eq!((report.health, report.took), (Err(Failure::Refused), None));
    }
}
