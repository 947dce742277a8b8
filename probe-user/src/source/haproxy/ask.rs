//! Asks HAProxy, for at most so long and so much.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Address, AskError, Cause, ParseError, Reading, page, stat};
use crate::config::StatsSocket;
use crate::source::fetch;

/// The time for a whole answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// What is read of an answer: a server takes 0.3 KiB of `show stat` and 5 KiB of the exporter's page.
pub(super) const LONGEST: usize = 4 << 20;

/// Asks at an address.
///
/// # Errors
/// When there is no answer, none in time, or none of HAProxy.
pub async fn read(address: &Address) -> Result<Reading, AskError> {
    let answer = timeout(PATIENCE, ask(address)).await.unwrap_or(Err(Cause::Late));
    answer
        .and_then(|answer| parse(address, &answer))
        .map_err(|cause| AskError { address: address.clone(), cause })
}

async fn ask(address: &Address) -> Result<Vec<u8>, Cause> {
    match address {
        Address::Socket(StatsSocket::Unix(path)) => {
            exchange(UnixStream::connect(path).await?, "show stat\n").await
        }
        Address::Socket(StatsSocket::Tcp(address)) => {
            exchange(TcpStream::connect(address).await?, "show stat\n").await
        }
        Address::Page(url) => {
            let response = fetch::get(&url.authority, &url.path, PATIENCE, LONGEST).await?;
            if response.status == 200 { Ok(response.body) } else { Err(Cause::Status(response.status)) }
        }
    }
}

/// Whoever is asked ends the connection after the answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<Vec<u8>, Cause> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
    let read = stream.take(most).read_to_end(&mut answer).await;
    match read {
        // What ends with a reset may be whole; whether it is, its end says.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error.into()),
        _ if answer.len() > LONGEST => Err(Cause::TooLong),
        _ => Ok(answer),
    }
}

fn parse(address: &Address, answer: &[u8]) -> Result<Reading, Cause> {
    let text = |bytes| String::from_utf8(bytes).ok().ok_or(ParseError::Encoding);
    match address {
        Address::Socket(_) => Ok(stat::parse(&text(answer.to_vec())?)?),
        Address::Page(_) => Ok(page::parse(&text(answer.to_vec())?)?),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::path::PathBuf;

    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::config::metrics_url;

    const RECORDED: &str = include_str!("testdata/stat.csv");

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("leadline-haproxy-{}-{name}.sock", std::process::id())))
        }

        fn address(&self) -> Address {
            Address::Socket(StatsSocket::Unix(self.0.clone()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    /// Takes one connection, reads the request, answers and hangs up.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, end: &str, answer: &[u8]) -> String {
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_socket_in_the_file_system_is_asked() {
        let scratch = Scratch::new("unix");
        let listener = UnixListener::bind(&scratch.0).unwrap();
        let server = tokio::spawn(async move {
            serve(listener.accept().await.unwrap().0, "\n", RECORDED.as_bytes()).await
        });
        assert_eq!(read(&scratch.address()).await.unwrap().backends.len(), 4);
        assert_eq!(server.await.unwrap(), "show stat\n");
    }

    #[tokio::test]
    async fn a_socket_over_tcp_and_a_page_are_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let stat = serve(listener.accept().await.unwrap().0, "\n", RECORDED.as_bytes()).await;
            let page = "HTTP/1.1 200 OK\r\n\r\nhaproxy_backend_active_servers{proxy=\"a\"} 3\n";
            (stat, serve(listener.accept().await.unwrap().0, "\r\n\r\n", page.as_bytes()).await)
        });
        let address = Address::Socket(StatsSocket::Tcp(local));
        assert_eq!(read(&address).await.unwrap().backends.len(), 4);
        let address = Address::Page(metrics_url(&format!("http://{local}/own")).unwrap());
        assert_eq!(read(&address).await.unwrap().backends["a"].active_servers, Some(3));
        let (stat, page) = server.await.unwrap();
        assert_eq!(stat, "show stat\n");
        assert!(page.starts_with(&format!("GET /own HTTP/1.1\r\nHost: {local}\r\n")), "{page}");
    }

    #[tokio::test]
    async fn every_failure_names_its_object_and_cause() {
        let scratch = Scratch::new("failing");
        let error = read(&scratch.address()).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Missing));
        assert_eq!(error.to_string(), scratch.0.display().to_string());
        // A socket that nobody listens on any more stays in the file system.
        drop(UnixListener::bind(&scratch.0).unwrap());
        assert!(matches!(read(&scratch.address()).await.unwrap_err().cause, Cause::Refused));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let scratch = Scratch::new("endless");
        let listener = UnixListener::bind(&scratch.0).unwrap();
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let part = vec![b'#'; 1 << 16];
            while stream.write_all(&part).await.is_ok() {}
        });
        assert!(matches!(read(&scratch.address()).await.unwrap_err().cause, Cause::TooLong));
    }

    #[tokio::test]
    async fn silence_is_not_waited_for() {
        let scratch = Scratch::new("silent");
        let _listener = UnixListener::bind(&scratch.0).unwrap();
        let error = read(&scratch.address()).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Late));
        assert_eq!(error.source().unwrap().to_string(), "no whole answer within 2 s");
    }
}
