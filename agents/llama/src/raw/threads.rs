//! The threads that compute on the processor.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// How long a thread looks for the next batch before it sleeps, in llama.cpp's unit of 131,072 looks; it would take 50. Batches
/// that follow each other mostly find it awake, and another engine, whose turn comes, is not disturbed for long.
const POLL: u32 = 4;

/// Threads that live as long as their model. Left to itself, llama.cpp starts new ones for every batch; the system puts each
/// on the core of the one that started it, and until it is given another, that one spins. On two cores, a text of 15 tokens
/// took 19 to 21 ms to embed so, takes 12 to 17 with threads that stay, and 8 to 10 if each stays on a core of its own.
pub(crate) struct Threads(NonNull<sys::ggml_threadpool>);

// SAFETY: nothing of it belongs to the thread that made it: whoever computes counts as its first thread.
unsafe impl Send for Threads {}
// SAFETY: only `Context::decode` hands it work, and all contexts of a model are used by the one thread that owns them.
unsafe impl Sync for Threads {}

impl Threads {
    /// So many, the one that asks for the work among them; none if the system gives no more. They stay on these cores, one each;
    /// where none are named, the system moves them.
    pub(crate) fn new(count: u32, cores: &[usize]) -> Option<Self> {
        let count = i32::try_from(count).ok()?;
        // SAFETY: the parameters are plain data that is read during the call; null is checked.
        let pool = unsafe {
            let mut params = sys::ggml_threadpool_params_default(count);
            params.poll = POLL;
            // The one that asks is sent to its core when it first does, so that threads which it starts before go anywhere.
            params.paused = true;
            // llama.cpp numbers no more than 512 of them.
            if cores.iter().all(|core| *core < params.cpumask.len()) {
                cores.iter().for_each(|core| params.cpumask[*core] = true);
                params.strict_cpu = !cores.is_empty();
            }
            sys::ggml_threadpool_new(&raw mut params)
        };
        NonNull::new(pool).map(Self)
    }

    /// Has a context compute with them, which must not outlive them.
    pub(super) fn attach(&self, context: NonNull<sys::llama_context>) {
        // SAFETY: both are alive.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), self.0.as_ptr(), self.0.as_ptr()) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: contexts hold an `Arc` of us, so none computes any more.
        unsafe { sys::ggml_threadpool_free(self.0.as_ptr()) }
    }
}
