//! A model hub on the loopback. Like the Hugging Face hub it redirects downloads of large files to a second server.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use crate::gguf_split::GgufPiece;
use crate::prerequisites::{models, repository};

/// The URI of the demo model.
pub const MODEL_URI: &str = "hf:org/smol/q4/smol.gguf";
/// The URI of the adapter `velo`, in a revision of its repository.
pub const ADAPTER_URI: &str = "hf:org/lora@v1/velo.gguf";

/// The URI of the embedding model.
pub const EMBEDDING_URI: &str = "hf:org/mini/mini.gguf";

/// The path of the repository of pieces on the hub, before the revision.
const PIECES_PATH: &str = "/org/pieces/resolve/";
/// The commit that `main` means there.
const PIECES_COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The embedding model, in the directory of the demo models.
const EMBEDDING_FILE: &str = "all-MiniLM-L6-v2.F16.gguf";
/// The hash of the demo model.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// A running hub. Dropping it stops it.
pub struct HubServer {
    /// Its URL, the value of `HF_ENDPOINT`.
    pub endpoint: String,
    hub: HttpServer,
    files: HttpServer,
    rest_of_model: Arc<Latch>,
}

/// A request: its method, its path and its headers.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The headers, in lower case.
    pub headers: Vec<String>,
}

impl HttpRequest {
    /// Whether it has a header with this prefix, in lower case.
    pub fn has_header(&self, prefix: &str) -> bool {
        self.headers.iter().any(|header| header.starts_with(prefix))
    }
}

/// Blocks until it is opened, once and for all.
#[derive(Default)]
struct Latch(Mutex<bool>, Condvar);

impl Latch {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

impl HubServer {
    /// Starts one that also has these pieces of a model, in the repository `org/pieces`.
    pub fn start_with_pieces(pieces: Vec<GgufPiece>) -> Self {
        let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self::start_serving(pieces.into_iter().map(|piece| (piece.name, (hash(&piece.bytes), piece.bytes))).collect())
    }

    /// Starts one. The first response with the model breaks off after a third; the next one stops after two thirds until
    /// [`HubServer::resume`].
    pub fn start() -> Self {
        Self::start_serving(HashMap::new())
    }

    /// The pieces by their names, each with its hash.
    fn start_serving(pieces: HashMap<String, (String, Vec<u8>)>) -> Self {
        let pieces = Arc::new(pieces);
        let of_files = pieces.clone();
        let rest_of_model = Arc::new(Latch::default());
        let (latch, has_broken_off) = (rest_of_model.clone(), AtomicBool::new(false));
        let files = HttpServer::start(move |request, stream| {
            if let Some((_, bytes)) = request.path.strip_prefix("/pieces/").and_then(|name| of_files.get(name)) {
                head(stream, "200 OK", bytes.len(), "")?;
                return stream.write_all(bytes);
            }
            if request.path.starts_with("/mini") {
                let bytes = fs::read(models().join(EMBEDDING_FILE))?;
                head(stream, "200 OK", bytes.len(), "")?;
                return stream.write_all(&bytes);
            }
            let bytes = fs::read(models().join("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
            let from =
                request.headers.iter().find_map(|header| header.strip_prefix("range: bytes=")?.strip_suffix('-'));
            let from: usize = from.map_or(0, |from| from.parse().unwrap());
            let all = bytes.len();
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let range = format!("Content-Range: bytes {from}-{}/{all}\r\nETag: \"blob\"\r\n", all - 1);
            head(stream, status, all - from, &range)?;
            if !has_broken_off.swap(true, Ordering::SeqCst) {
                return stream.write_all(&bytes[from..all / 3]);
            }
            let middle = from.max(all / 3 * 2);
            stream.write_all(&bytes[from..middle])?;
            latch.wait();
            stream.write_all(&bytes[middle..])
        });
        let blob = files.endpoint();
        let hub = HttpServer::start(move |request, stream| match request.path.as_str() {
            "/org/smol/resolve/main/q4/smol.gguf" => {
                let size = fs::metadata(models().join("SmolLM2-135M-Instruct.Q4_1.gguf"))?.len();
                let headers = format!(
                    "Location: {blob}/blob?signature=s\r\nX-Linked-Size: {size}\r\nX-Linked-Etag: \"{SHA256}\"\r\n"
                );
                head(stream, "302 Found", 0, &headers)
            }
            "/org/mini/resolve/main/mini.gguf" => {
                let size = fs::metadata(models().join(EMBEDDING_FILE))?.len();
                let headers = format!("Location: {blob}/mini\r\nX-Linked-Size: {size}\r\n");
                head(stream, "302 Found", 0, &headers)
            }
            "/org/lora/resolve/v1/velo.gguf" => {
                let bytes = fs::read(repository().join("tests/fixtures/adapters/velo.gguf"))?;
                head(stream, "200 OK", bytes.len(), "")?;
                stream.write_all(&bytes)
            }
            path if piece_name(path).is_some_and(|name| pieces.contains_key(name)) => {
                let name = piece_name(path).unwrap_or_default();
                let (hash, bytes) = &pieces[name];
                let size = bytes.len();
                let headers = format!(
                    "Location: {blob}/pieces/{name}\r\nX-Linked-Size: {size}\r\nX-Linked-Etag: \"{hash}\"\r\n\
                     X-Repo-Commit: {PIECES_COMMIT}\r\n"
                );
                head(stream, "302 Found", 0, &headers)
            }
            _ => head(stream, "404 Not Found", 0, "X-Error-Code: EntryNotFound\r\n"),
        });
        Self { endpoint: hub.endpoint(), hub, files, rest_of_model }
    }

    /// The socket address of the hub itself.
    pub fn address(&self) -> SocketAddr {
        self.hub.address
    }

    /// Lets the rest of the model be sent.
    pub fn resume(&self) {
        self.rest_of_model.open();
    }

    /// The requests that the hub received.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.hub.requests.lock().unwrap().clone()
    }

    /// The requests that the server of large files received.
    pub fn file_requests(&self) -> Vec<HttpRequest> {
        self.files.requests.lock().unwrap().clone()
    }

    /// The path of the fetched model below a directory of models.
    pub fn model_path() -> PathBuf {
        PathBuf::from("hf/org/smol/main/q4/smol.gguf")
    }

    /// The same of the embedding model.
    pub fn embedding_path() -> PathBuf {
        PathBuf::from("hf/org/mini/main/mini.gguf")
    }
}

/// The name of the piece in a path, at `main` or at its commit.
fn piece_name(path: &str) -> Option<&str> {
    let (revision, name) = path.strip_prefix(PIECES_PATH)?.split_once('/')?;
    matches!(revision, "main" | PIECES_COMMIT).then_some(name)
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.rest_of_model.open();
    }
}

struct HttpServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Responds to each request in a thread of its own.
    fn start(respond: impl Fn(&HttpRequest, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let respond = Arc::new(respond);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (received, is_stopped) = (requests.clone(), stopped.clone());
        let thread = thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = read(&stream) else { continue };
                received.lock().unwrap().push(request.clone());
                let respond = respond.clone();
                // The client may have closed the connection.
                thread::spawn(move || respond(&request, &mut stream).ok());
            }
        });
        Self { address, requests, stopped, thread: Some(thread) }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read(stream: &TcpStream) -> Option<HttpRequest> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.next()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    Some(HttpRequest { method, path, headers })
}

fn head(stream: &mut TcpStream, status: &str, length: usize, headers: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")
}
