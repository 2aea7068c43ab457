//! One connection, one request, one answer of bounded length.
//!
//! bollard bounds the time of a call and holds the whole of its answer in memory, so that whoever listens at the socket and
//! does not stop would fill it within the time. What comes is counted here, below HTTP, whoever asked: headers, framing and all.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::BollardRequest;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::{ApiError, answer};

/// The longest list, in octets. A container takes 2 KiB in one, so that 10,000 take 20 MiB.
const LIST: u64 = 64 << 20;
/// The longest answer that is no list: a network's, in which a container takes 300 octets.
const ONE: u64 = 16 << 20;
/// The longest of what bollard asks for: it keeps each chunk of an answer by itself, with many times its octets if that is how they come.
const FEW: u64 = 4 << 20;
/// The longest message of the event stream. It has its container's labels.
const MESSAGE: usize = 4 << 20;

/// More came than any engine sends.
#[derive(Debug, thiserror::Error)]
#[error("more than {bound} octets came")]
pub struct TooMuch {
    /// What was waited for at the most.
    pub bound: u64,
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Incoming>, ApiError>> + Send>>;

/// What bollard sends its requests by.
pub fn to(socket: PathBuf) -> impl Fn(BollardRequest) -> Answered {
    move |request| {
        let socket = socket.clone();
        Box::pin(async move { send(&socket, request, FEW).await })
    }
}

/// How much may come for an answer.
fn bound(path: &str) -> u64 {
    let lists = ["/containers/json", "/networks", "/networks/json", "/images/json"];
    if lists.iter().any(|list| path.ends_with(list)) { LIST } else { ONE }
}

/// The body of an engine's yes.
pub async fn ask(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Vec<u8>, ApiError> {
    let bound = bound(path.split('?').next().unwrap_or(path));
    let response = send(socket, request(method, path, body)?, bound).await?;
    let status = response.status();
    let body = whole(response).await?;
    if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
}

/// Asks for what has no end but the connection's.
pub async fn stream(socket: &Path, path: &str) -> Result<Lines, ApiError> {
    let response = send(socket, request(Method::GET, path, Bytes::new())?, u64::MAX).await?;
    if response.status().is_success() {
        return Ok(Lines { body: response.into_body(), waiting: BytesMut::new(), looked_at: 0 });
    }
    Err(refused(response.status(), &whole(response).await?))
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ApiError> {
    let kind = if method == Method::GET { "application/json" } else { "application/x-tar" };
    Ok(Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind).body(Full::new(body))?)
}

async fn send<B>(socket: &Path, request: Request<B>, bound: u64) -> Result<Response<Incoming>, ApiError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut head, body) = request.into_parts();
    // only a proxy wants the address in it
    head.uri = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    head.headers.insert(HOST, HeaderValue::from_static("localhost"));
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let stream = UnixStream::connect(socket).await?;
    let io = TokioIo::new(Bounded { stream, left: bound, bound });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // It ends, and the connection with it, with the answer or with whoever waits for it. Its errors are told there.
    tokio::spawn(connection);
    Ok(sender.send_request(Request::from_parts(head, body)).await?)
}

async fn whole(response: Response<Incoming>) -> Result<Vec<u8>, ApiError> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        all.extend_from_slice(&data);
        if all.len() as u64 > LIST {
            return Err(too_much(LIST));
        }
    }
    Ok(all)
}

fn refused(status: StatusCode, words: &[u8]) -> ApiError {
    ApiError::DockerResponseServerError { status_code: status.as_u16(), message: answer::refusal(words) }
}

fn too_much(bound: u64) -> ApiError {
    io::Error::other(TooMuch { bound }).into()
}

/// The lines of a body that may have no end.
pub struct Lines {
    body: Incoming,
    waiting: BytesMut,
    /// So much of it has no end of a line.
    looked_at: usize,
}

impl Lines {
    /// The next one without its end, none when there are no more.
    pub async fn next(&mut self) -> Result<Option<BytesMut>, ApiError> {
        loop {
            if let Some(end) = self.waiting[self.looked_at..].iter().position(|octet| *octet == b'\n') {
                let mut line = self.waiting.split_to(self.looked_at + end + 1);
                line.truncate(line.len() - 1);
                self.looked_at = 0;
                return Ok(Some(line));
            }
            self.looked_at = self.waiting.len();
            if self.waiting.len() > MESSAGE {
                return Err(too_much(MESSAGE as u64));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.waiting.extend_from_slice(&data);
                    }
                }
                None if self.waiting.is_empty() => return Ok(None),
                None => {
                    self.looked_at = 0;
                    return Ok(Some(self.waiting.split()));
                }
            }
        }
    }
}

/// A connection that fails when more has come than may.
struct Bounded {
    stream: UnixStream,
    left: u64,
    bound: u64,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let came = (buffer.filled().len() - before) as u64;
        match self.left.checked_sub(came) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other(TooMuch { bound: self.bound }))),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
