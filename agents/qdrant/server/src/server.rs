//! The server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::access::KeyCheck;
use crate::collection::ServedPoint;
use crate::collections::CollectionCalls;
use crate::points::PointCalls;
use crate::state::{Fault, ServedCall, SharedState};

/// A server on a port of this machine. Dropping it ends it and what it holds.
#[derive(Debug)]
pub struct QdrantServer {
    address: SocketAddr,
    state: Arc<SharedState>,
    /// The server ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl QdrantServer {
    /// A server that lets every client in. Needs a runtime of tokio, on which it serves.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> io::Result<Self> {
        Self::serve(bind().await?, None)
    }

    /// A server that lets in clients with this key alone.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start_with_key(key: &str) -> io::Result<Self> {
        Self::serve(bind().await?, Some(key.to_owned()))
    }

    /// A server that lets everybody in, on a port that is bound already.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn serve_on(listener: TcpListener) -> io::Result<Self> {
        Self::serve(listener, None)
    }

    fn serve(listener: TcpListener, key: Option<String>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(SharedState::default());
        let (running, ended) = oneshot::channel::<()>();
        let check = KeyCheck::new(key);
        let router = Server::builder()
            .add_service(CollectionsServer::with_interceptor(CollectionCalls::new(Arc::clone(&state)), check.clone()))
            .add_service(PointsServer::with_interceptor(PointCalls::new(Arc::clone(&state)), check));
        let ended = async { drop(ended.await) };
        tokio::spawn(router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended));
        Ok(Self { address, state, _running: running })
    }

    /// Its address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `calls` calls are answered, and all after them fail with `UNAVAILABLE`.
    pub fn fail_after(&self, calls: usize) {
        self.state.set_fault(Fault::Unavailable, calls);
    }

    /// From now on calls are taken and never answered.
    pub fn hang(&self) {
        self.state.set_fault(Fault::Hang, 0);
    }

    /// Ends what [`fail_after`](Self::fail_after) and [`hang`](Self::hang) began; calls that hang already are never answered.
    pub fn heal(&self) {
        self.state.clear_fault();
    }

    /// From now on no field of payloads gets an index, as in a collection that has as many as it may.
    pub fn refuse_indexes(&self) {
        self.state.refuse_indexes();
    }

    /// The calls so far, in order, those that failed included.
    pub fn calls(&self) -> Vec<ServedCall> {
        self.state.calls()
    }

    /// The names of the collections.
    pub fn collections(&self) -> Vec<String> {
        self.state.with_collections(|collections| collections.keys().cloned().collect())
    }

    /// The points of a collection, sorted by their ids; none if it is not there.
    pub fn points(&self, collection: &str) -> Vec<ServedPoint> {
        self.state.with_collections(|collections| {
            collections.get(collection).map(|collection| collection.served_points()).unwrap_or_default()
        })
    }

    /// The fields of payloads that have an index.
    pub fn indexed_fields(&self, collection: &str) -> Vec<String> {
        self.state.with_collections(|collections| {
            collections.get(collection).map(|collection| collection.indexed_fields()).unwrap_or_default()
        })
    }

    /// Deletes a collection, as an owner may do by hand. Says whether it was there.
    pub fn drop_collection(&self, collection: &str) -> bool {
        self.state.with_collections(|collections| collections.remove(collection).is_some())
    }
}

async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}
