//! Asks tailscaled, for at most so long and so much. Only GET requests are made: none of them changes anything, and
//! tailscaled logs none of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{AskError, Cause, Reading, status};
use crate::source::fetch;

/// The time for all answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// What is read of an answer: a peer takes 1.5 KiB.
pub(super) const LONGEST: usize = 16 << 20;
/// The name that tailscaled wants to be called by.
const HOST: &str = "local-tailscaled.sock";
/// State, peers and health.
const STATUS: &str = "/localapi/v0/status";
/// What the administrator has set, of which the offered routes are read.
const PREFS: &str = "/localapi/v0/prefs";

/// Asks at a socket.
///
/// # Errors
/// When the socket is not root's, and when there is no answer, none in time, or none of tailscaled.
pub async fn read(socket: &Path) -> Result<Reading, AskError> {
    let answer = timeout(PATIENCE, ask(socket)).await.unwrap_or(Err(Cause::Late));
    answer.map_err(|cause| AskError { socket: socket.to_owned(), cause })
}

async fn ask(socket: &Path) -> Result<Reading, Cause> {
    let (answer, process) = get(socket, STATUS).await?;
    let mut reading = status::parse(&answer)?;
    reading.process = process;
    // Without them the routes are unknown, and nothing else.
    reading.advertised = match get(socket, PREFS).await {
        Ok((prefs, _)) => status::parse_advertised(&prefs),
        Err(Cause::Status(_)) => None,
        Err(cause) => return Err(cause),
    };
    Ok(reading)
}

/// The body of an answer, and the process that listens.
async fn get(socket: &Path, path: &str) -> Result<(Vec<u8>, Option<i32>), Cause> {
    trust(fs::metadata(socket)?.uid())?;
    let stream = UnixStream::connect(socket).await?;
    // The path may be another's by now; the kernel knows who listens.
    let listener = stream.peer_cred()?;
    trust(listener.uid())?;
    let response = fetch::converse(stream, HOST, path, LONGEST).await?;
    match response.status {
        200 => Ok((response.body, listener.pid())),
        403 => Err(Cause::Denied),
        status => Err(Cause::Status(status)),
    }
}

/// Root, or whoever runs the agent, which is root outside of tests.
fn trust(owner: u32) -> Result<(), Cause> {
    let is_trusted = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if is_trusted { Ok(()) } else { Err(Cause::Untrusted(owner)) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::source::tailscale::Backend;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let file = format!("leadline-tailscale-{}-{name}.sock", std::process::id());
            Self(std::env::temp_dir().join(file))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    /// Takes one connection for each answer, and gives back what was asked.
    async fn serve(listener: UnixListener, answers: &[&str]) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let mut stream = listener.accept().await.unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked.push(String::from_utf8(request).unwrap());
        }
        asked
    }

    #[tokio::test]
    async fn status_and_prefs_are_asked_by_get_and_nothing_else() {
        let scratch = Scratch::new("both");
        let listener = UnixListener::bind(&scratch.0).unwrap();
        let server = tokio::spawn(async move {
            let status = "HTTP/1.1 200 OK\r\n\r\n{\"BackendState\":\"Running\"}";
            let prefs = "HTTP/1.1 200 OK\r\n\r\n{\"AdvertiseRoutes\":[\"10.42.3.0/24\"]}";
            serve(listener, &[status, prefs]).await
        });
        let reading = read(&scratch.0).await.unwrap();
        assert_eq!(reading.backend, Backend::Running);
        assert_eq!(reading.process, i32::try_from(std::process::id()).ok());
        assert_eq!(reading.advertised, Some(vec!["10.42.3.0/24".parse().unwrap()]));
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("GET /localapi/v0/status HTTP/1.1\r\nHost: local-tailscaled.sock\r\n"));
        assert!(asked[1].starts_with("GET /localapi/v0/prefs HTTP/1.1\r\n"), "{asked:?}");
    }

    #[tokio::test]
    async fn without_prefs_the_routes_are_unknown() {
        let scratch = Scratch::new("prefs");
        let listener = UnixListener::bind(&scratch.0).unwrap();
        let server = tokio::spawn(async move {
            let status = "HTTP/1.1 200 OK\r\n\r\n{\"BackendState\":\"Stopped\"}";
            serve(listener, &[status, "HTTP/1.1 404 Not Found\r\n\r\n"]).await
        });
        let reading = read(&scratch.0).await.unwrap();
        assert_eq!((reading.backend, reading.advertised), (Backend::Stopped, None));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn every_failure_names_its_object_and_cause() {
        let scratch = Scratch::new("failing");
        let error = read(&scratch.0).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Missing));
        assert_eq!(error.to_string(), scratch.0.display().to_string());
        // A socket that nobody listens on any more stays in the file system.
        let listener = UnixListener::bind(&scratch.0).unwrap();
        let server = tokio::spawn(async move {
            serve(listener, &["HTTP/1.1 403 Forbidden\r\n\r\nstatus access denied"]).await;
        });
        assert!(matches!(read(&scratch.0).await.unwrap_err().cause, Cause::Denied));
        server.await.unwrap();
        assert!(matches!(read(&scratch.0).await.unwrap_err().cause, Cause::Refused));
    }

    #[tokio::test]
    async fn silence_is_not_waited_for() {
        let scratch = Scratch::new("silent");
        let _listener = UnixListener::bind(&scratch.0).unwrap();
        assert!(matches!(read(&scratch.0).await.unwrap_err().cause, Cause::Late));
    }

    #[test]
    fn a_socket_of_another_user_is_not_trusted() {
        assert!(trust(0).is_ok());
        assert!(matches!(trust(4_294_967_000), Err(Cause::Untrusted(4_294_967_000))));
    }
}
