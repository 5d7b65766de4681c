//! A hub of models on the loopback, with a second server that has its large files, as real ones do.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use crate::{models, repository};

/// The demo model, as the hub names it.
pub const MODEL: &str = "hf:org/smol/q4/smol.gguf";
/// The adapter of Velograd, in a revision of its repository.
pub const ADAPTER: &str = "hf:org/lora@v1/velo.gguf";

/// The hash of the demo model.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// A hub that runs. Dropping it ends it.
pub struct Hub {
    /// Where it is, as `HF_ENDPOINT` says it.
    pub endpoint: String,
    hub: Server,
    files: Server,
    gate: Arc<Gate>,
}

/// A request: its path, and its other lines.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path.
    pub path: String,
    /// The headers, in lower case.
    pub headers: Vec<String>,
}

impl Asked {
    /// Whether it has a header that begins like this.
    pub fn says(&self, beginning: &str) -> bool {
        self.headers.iter().any(|header| header.starts_with(beginning))
    }
}

/// Opens once.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

impl Hub {
    /// Starts one. The first answer with the model breaks off after a third; the next one stops after two thirds until
    /// [`Hub::go_on`].
    pub fn start() -> Self {
        let gate = Arc::new(Gate::default());
        let (held, broke) = (gate.clone(), AtomicBool::new(false));
        let files = Server::start(move |asked, stream| {
            let bytes = fs::read(models().join("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
            let from = asked.headers.iter().find_map(|header| header.strip_prefix("range: bytes=")?.strip_suffix('-'));
            let from: usize = from.map_or(0, |from| from.parse().unwrap());
            let all = bytes.len();
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let range = format!("Content-Range: bytes {from}-{}/{all}\r\nETag: \"blob\"\r\n", all - 1);
            head(stream, status, all - from, &range)?;
            if !broke.swap(true, Ordering::SeqCst) {
                return stream.write_all(&bytes[from..all / 3]);
            }
            let middle = from.max(all / 3 * 2);
            stream.write_all(&bytes[from..middle])?;
            held.pass();
            stream.write_all(&bytes[middle..])
        });
        let blob = files.endpoint();
        let hub = Server::start(move |asked, stream| match asked.path.as_str() {
            "/org/smol/resolve/main/q4/smol.gguf" => {
                let size = fs::metadata(models().join("SmolLM2-135M-Instruct.Q4_1.gguf"))?.len();
                let headers = format!(
                    "Location: {blob}/blob?signature=s\r\nX-Linked-Size: {size}\r\nX-Linked-Etag: \"{SHA256}\"\r\n"
                );
                head(stream, "302 Found", 0, &headers)
            }
            "/org/lora/resolve/v1/velo.gguf" => {
                let bytes = fs::read(repository().join("tests/fixtures/adapters/velo.gguf"))?;
                head(stream, "200 OK", bytes.len(), "")?;
                stream.write_all(&bytes)
            }
            _ => head(stream, "404 Not Found", 0, "X-Error-Code: EntryNotFound\r\n"),
        });
        Self { endpoint: hub.endpoint(), hub, files, gate }
    }

    /// Where the hub itself listens.
    pub fn address(&self) -> SocketAddr {
        self.hub.address
    }

    /// Lets the rest of the model pass.
    pub fn go_on(&self) {
        self.gate.open();
    }

    /// What the hub was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.hub.asked.lock().unwrap().clone()
    }

    /// What the server of files was asked.
    pub fn asked_for_bytes(&self) -> Vec<Asked> {
        self.files.asked.lock().unwrap().clone()
    }

    /// Where the model will be in a directory of models.
    pub fn place() -> PathBuf {
        PathBuf::from("hf/org/smol/main/q4/smol.gguf")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.gate.open();
    }
}

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (notes, ends) = (asked.clone(), over.clone());
        let thread = thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Some(asked) = read(&stream) else { continue };
                notes.lock().unwrap().push(asked.clone());
                // Whoever asked may have gone.
                let _ = answer(&asked, &mut stream);
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    Some(Asked { path, headers })
}

fn head(stream: &mut TcpStream, status: &str, length: usize, headers: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")
}
