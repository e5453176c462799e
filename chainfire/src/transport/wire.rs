//! One connection that generated gRPC clients speak through, for calls that are many and small.
//!
//! tonic's own channel sends the head, the message and the end of a call as three packets: the other side
//! wakes up three times for a call. Here a call is one packet, as it is with other gRPC clients. A
//! connection that is lost stays lost: its owner sees the error and decides.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;

/// A connection. Clones share it; it is closed when the last one goes.
#[derive(Debug, Clone)]
pub struct Wire {
    requests: SendRequest<Bytes>,
    authority: Authority,
}

/// Why a call was not answered at all.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("cannot connect: no answer in {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the connection failed: {0}")]
    Connection(#[from] h2::Error),
    #[error("not an address: {0}")]
    Authority(#[from] http::uri::InvalidUri),
    #[error("the call could not be addressed: {0}")]
    Address(#[from] http::uri::InvalidUriParts),
    #[error("the call could not be encoded: {0}")]
    Body(#[source] tonic::Status),
}

impl Wire {
    /// Connects to `address` (host:port). The connection is driven on the current runtime.
    pub async fn open(address: &str, at_most: Duration) -> Result<Self, WireError> {
        match timeout(at_most, Self::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(WireError::Silent(at_most)),
        }
    }

    async fn connect(address: &str) -> Result<Self, WireError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        // Its end is seen by the call that is under way.
        tokio::spawn(connection);
        Ok(Self {
            requests,
            authority: address.parse()?,
        })
    }

    /// The head of a call: the generated clients give the path only.
    fn head(&self, parts: http::request::Parts) -> Result<Request<()>, WireError> {
        let mut head = Request::from_parts(parts, ());
        let mut uri = std::mem::take(head.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        *head.uri_mut() = Uri::from_parts(uri)?;
        Ok(head)
    }
}

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Answer>;
    type Error = WireError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(ready!(self.requests.poll_ready(context))?))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let sent = self.head(parts).and_then(|head| {
            let (response, stream) = self.requests.send_request(head, false)?;
            Ok((response, send(body, stream)?))
        });
        Box::pin(async move {
            let (response, rest) = sent?;
            Ok(response.await?.map(|stream| Answer { stream, _rest: rest }))
        })
    }
}

/// Queues what there is of `body`, with the end of the call if that is known, before the connection gets
/// to write anything. What comes later is sent by the task that is returned.
fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<Option<JoinSet<()>>, WireError> {
    let mut held = Bytes::new();
    loop {
        match next_data(&mut body).now_or_never() {
            Some(Some(data)) => {
                let before = std::mem::replace(&mut held, data?);
                if !before.is_empty() {
                    stream.send_data(before, false)?;
                }
            }
            Some(None) => {
                stream.send_data(held, true)?;
                return Ok(None);
            }
            None => {
                stream.send_data(held, false)?;
                return Ok(Some(JoinSet::from_iter([keep_sending(body, stream)])));
            }
        }
    }
}

/// Sends the rest of a stream of requests. An error ends the call, and shows there.
async fn keep_sending(mut body: Body, mut stream: SendStream<Bytes>) {
    while let Some(Ok(data)) = next_data(&mut body).await {
        if stream.send_data(data, false).is_err() {
            return;
        }
    }
    // The call may be over already.
    let _ = stream.send_data(Bytes::new(), true);
}

async fn next_data(body: &mut Body) -> Option<Result<Bytes, WireError>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(
        frame
            .map(|frame| frame.into_data().unwrap_or_default())
            .map_err(WireError::Body),
    )
}

/// The body of a response.
#[derive(Debug)]
pub struct Answer {
    stream: RecvStream,
    /// Ends with the answer: who does not listen has no more to say.
    _rest: Option<JoinSet<()>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(context)) {
            let data = data?;
            self.stream.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
