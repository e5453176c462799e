//! A server for tests: real gRPC on a real port, answers by script.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt, stream};
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub type Answers = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;
type Answering = Pin<Box<dyn Future<Output = Result<Answers, Status>> + Send>>;
type Script = Arc<dyn Fn(String, Streaming<Vec<u8>>) -> Answering + Send + Sync>;

/// What was called, with what.
type Calls = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that runs until it is dropped.
pub struct Fake {
    pub address: String,
    calls: Calls,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Answers every call, by its name such as `GetVm`, with messages.
    pub async fn answering<F>(script: F) -> Self
    where
        F: Fn(&str, &[u8]) -> Result<Vec<Vec<u8>>, Status> + Send + Sync + 'static,
    {
        let calls: Calls = Arc::default();
        let noted = Arc::clone(&calls);
        let script = Arc::new(script);
        let each = move |call: String, mut requests: Streaming<Vec<u8>>| -> Answering {
            let (noted, script) = (Arc::clone(&noted), Arc::clone(&script));
            Box::pin(async move {
                let request = requests.message().await?.unwrap_or_default();
                noted.lock().unwrap().push((call.clone(), request.clone()));
                let answers = script(&call, &request)?;
                Ok(stream::iter(answers.into_iter().map(Ok)).boxed())
            })
        };
        Self::serving(Arc::new(each), calls).await
    }

    /// Leaves the stream to the script.
    pub async fn streaming<F>(script: F) -> Self
    where
        F: Fn(Streaming<Vec<u8>>) -> Result<Answers, Status> + Send + Sync + 'static,
    {
        let script = Arc::new(script);
        let each = move |_: String, requests: Streaming<Vec<u8>>| -> Answering {
            let script = Arc::clone(&script);
            Box::pin(async move { script(requests) })
        };
        Self::serving(Arc::new(each), Arc::default()).await
    }

    async fn serving(script: Script, calls: Calls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder()
            .add_service(Vms(Scripted(Arc::clone(&script))))
            .add_service(Operations(Scripted(Arc::clone(&script))))
            .add_service(Clusters(Scripted(Arc::clone(&script))))
            .add_service(Events(Scripted(script)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { address, calls, task }
    }

    /// The names of the calls, in order.
    pub fn calls(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|(call, _)| call.clone())
            .collect()
    }

    /// The requests of one kind of call.
    pub fn requests<M: Message + Default>(&self, call: &str) -> Vec<M> {
        let calls = self.calls.lock().unwrap();
        let meant = calls.iter().filter(|(name, _)| name == call);
        meant.map(|(_, bytes)| M::decode(bytes.as_slice()).unwrap()).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens.
pub async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

pub fn one(message: &impl Message) -> Result<Vec<Vec<u8>>, Status> {
    Ok(vec![message.encode_to_vec()])
}

#[derive(Clone)]
struct Scripted(Script);

macro_rules! services {
    ($($name:ident is $service:literal;)*) => {$(
        #[derive(Clone)]
        struct $name(Scripted);

        impl NamedService for $name {
            const NAME: &'static str = $service;
        }

        impl Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let script = self.0.clone();
                Box::pin(async move { Ok(Grpc::new(Bytes).streaming(Called { script, call }, request).await) })
            }
        }
    )*};
}

services! {
    Vms is "plasmavmc.VmService";
    Operations is "plasmavmc.OperationService";
    Clusters is "plasmavmc.ClusterService";
    Events is "plasmavmc.EventService";
}

struct Called {
    script: Scripted,
    call: String,
}

impl StreamingService<Vec<u8>> for Called {
    type Response = Vec<u8>;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let answering = (self.script.0)(self.call.clone(), request.into_inner());
        Box::pin(async move { answering.await.map(Response::new) })
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; prost::bytes::Buf::remaining(from)];
        prost::bytes::Buf::copy_to_slice(from, &mut bytes);
        Ok(Some(bytes))
    }
}
