//! Forwards llama.cpp's log to `tracing`, and extracts buffer sizes from it, which llama.cpp reports nowhere else.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;

use llama_cpp_sys_2 as sys;

/// A buffer reported by one log line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoggedBuffer {
    /// The name of its ggml buffer type, such as `CPU_Mapped`, `CUDA0` or `RPC0[127.0.0.1:50052]`.
    pub(crate) buffer_type: String,
    /// Its content.
    pub(crate) purpose: BufferPurpose,
    /// Its size.
    pub(crate) bytes: u64,
}

/// The content of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BufferPurpose {
    Weights,
    KvCache,
    Compute,
}

#[derive(Default)]
struct LlamaLog {
    /// An incomplete line, and its level.
    line: String,
    level: sys::ggml_log_level,
    buffers: Vec<LoggedBuffer>,
    errors: Vec<String>,
    /// How long the last reservation of compute buffers took.
    reservation: Option<Duration>,
}

/// Errors that are kept: the first ones name the cause, later ones its consequences.
const MAX_ERRORS: usize = 3;
/// Bytes of an error that are kept; it may quote a file.
const MAX_ERROR_BYTES: usize = 300;

thread_local! {
    /// What llama.cpp logs on this thread: it loads and computes on the thread that calls it, so engines of one process are told apart.
    static LOG: RefCell<LlamaLog> = RefCell::default();
}

/// Installs the log callback.
pub(super) fn install() {
    // SAFETY: the callback is a static function, takes no user data, and never unwinds.
    unsafe {
        sys::llama_log_set(Some(on_log), std::ptr::null_mut());
        sys::ggml_log_set(Some(on_log), std::ptr::null_mut());
    }
}

/// The buffers reported since the last call.
pub(crate) fn take_buffers() -> Vec<LoggedBuffer> {
    LOG.with_borrow_mut(|log| std::mem::take(&mut log.buffers))
}

/// How long a reservation of compute buffers took, if there was one since the last call. The buffers that it named take the place of
/// those that were reserved when the model was loaded, and are dropped.
pub(crate) fn take_reservation_time() -> Option<Duration> {
    LOG.with_borrow_mut(|log| {
        log.buffers.clear();
        log.reservation.take()
    })
}

/// The first errors since the last call, on one line.
pub(crate) fn take_errors() -> String {
    LOG.with_borrow_mut(|log| std::mem::take(&mut log.errors).join("; "))
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a C string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A thread that ends logs nothing more.
    let _ = LOG.try_with(|log| {
        let Ok(mut log) = log.try_borrow_mut() else { return };
        log.add(level, &text);
    });
}

impl LlamaLog {
    fn add(&mut self, level: sys::ggml_log_level, text: &str) {
        for part in text.split_inclusive('\n') {
            if level != sys::GGML_LOG_LEVEL_CONT {
                self.level = level;
            }
            self.line.push_str(part);
            if part.ends_with('\n') {
                let line = std::mem::take(&mut self.line);
                let line = line.trim_end();
                self.buffers.extend(parse_buffer(line));
                self.reservation = parse_reservation(line).or(self.reservation);
                if self.level == sys::GGML_LOG_LEVEL_ERROR && self.errors.len() < MAX_ERRORS {
                    self.errors.push(line[..line.floor_char_boundary(MAX_ERROR_BYTES)].to_owned());
                }
                forward(self.level, line);
            }
        }
    }
}

/// llama.cpp logs each tensor of a model at level `info`, which becomes `debug` here.
fn forward(level: sys::ggml_log_level, line: &str) {
    match level {
        _ if line.trim_start_matches('.').is_empty() => {}
        sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama_cpp", "{line}"),
        _ => tracing::trace!(target: "llama_cpp", "{line}"),
    }
}

/// Parses lines such as `load_tensors:   CPU_Mapped model buffer size =    92.32 MiB`.
fn parse_buffer(line: &str) -> Option<LoggedBuffer> {
    let (before, after) = line.split_once(" buffer size =")?;
    let mut words = before.split_whitespace().rev();
    let purpose = match words.next()? {
        "model" | "LoRA" => BufferPurpose::Weights,
        "KV" | "RS" => BufferPurpose::KvCache,
        "compute" | "output" => BufferPurpose::Compute,
        _ => return None,
    };
    let buffer_type = words.next()?.to_owned();
    let size: f64 = after.trim().strip_suffix("MiB")?.trim().parse().ok()?;
    Some(LoggedBuffer { buffer_type, purpose, bytes: (size * 1_048_576.0) as u64 })
}

/// Parses lines such as `sched_reserve: reserve took 5.25 ms, sched copies = 1`.
fn parse_reservation(line: &str) -> Option<Duration> {
    let (_, after) = line.split_once(": reserve took ")?;
    let millis: f64 = after.split_once(" ms")?.0.parse().ok()?;
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_reservation_is_parsed() {
        let line = "sched_reserve: reserve took 5.25 ms, sched copies = 1";
        assert_eq!(parse_reservation(line), Some(Duration::from_micros(5250)));
        assert_eq!(parse_reservation("sched_reserve: reserve took a while"), None);
    }

    #[test]
    fn buffers_are_parsed_from_log_lines() {
        let line = "load_tensors:   CPU_Mapped model buffer size =    92.32 MiB";
        let expected =
            LoggedBuffer { buffer_type: "CPU_Mapped".to_owned(), purpose: BufferPurpose::Weights, bytes: 96_804_536 };
        assert_eq!(parse_buffer(line), Some(expected));
        let line = "llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =   720.00 MiB";
        let found = parse_buffer(line).unwrap();
        assert_eq!((found.buffer_type.as_str(), found.purpose), ("RPC0[127.0.0.1:50052]", BufferPurpose::KvCache));
        assert_eq!(
            parse_buffer("sched_reserve:        CPU compute buffer size =    12.50 MiB").unwrap().purpose,
            BufferPurpose::Compute
        );
        for other in ["", "buffer size = 1 MiB", "x: CPU model buffer size = many MiB", "CPU tea buffer size = 1.0 MiB"]
        {
            assert_eq!(parse_buffer(other), None, "{other}");
        }
    }
}
