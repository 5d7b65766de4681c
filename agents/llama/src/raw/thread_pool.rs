//! The threads that compute on the CPU.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// How long a thread polls for the next batch before it sleeps, in ggml's unit of 131,072 polls. With 4 instead of ggml's
/// default of 50, consecutive batches mostly find it awake, and an engine that acquires the CPU next is not disturbed for long.
const POLL_LEVEL: u32 = 4;

/// A thread pool that lives as long as its model. By default llama.cpp starts new threads for every batch; the system puts
/// each on the core of its parent, which spins until the system moves the new thread. A permanent pool avoids this, and
/// pinning each thread to its own core speeds up small batches further.
pub(crate) struct ComputeThreadPool(NonNull<sys::ggml_threadpool>);

// SAFETY: the pool is not tied to the thread that created it: the thread that calls `decode` acts as its first thread.
unsafe impl Send for ComputeThreadPool {}
// SAFETY: only `LlamaContext::decode` gives it work, and the contexts of a process are each used by the one thread that owns them.
unsafe impl Sync for ComputeThreadPool {}

impl ComputeThreadPool {
    /// Creates `count` threads, including the calling one; `None` if the system refuses. Each is pinned to one of `cores`; if
    /// that is empty, the system schedules them.
    pub(crate) fn new(count: u32, cores: &[usize]) -> Option<Self> {
        let count = i32::try_from(count).ok()?;
        // SAFETY: the parameters are plain data that is read during the call only; null is checked.
        let pool = unsafe {
            let mut params = sys::ggml_threadpool_params_default(count);
            params.poll = POLL_LEVEL;
            // The calling thread is pinned at its first batch, so that threads which it starts earlier are not pinned with it.
            params.paused = true;
            // ggml's CPU mask has 512 entries.
            if cores.iter().all(|core| *core < params.cpumask.len()) {
                cores.iter().for_each(|core| params.cpumask[*core] = true);
                params.strict_cpu = !cores.is_empty();
            }
            sys::ggml_threadpool_new(&raw mut params)
        };
        NonNull::new(pool).map(Self)
    }

    /// Makes a context compute with this pool, which must outlive it.
    pub(super) fn attach(&self, context: NonNull<sys::llama_context>) {
        // SAFETY: both pointers are valid.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), self.0.as_ptr(), self.0.as_ptr()) }
    }
}

impl Drop for ComputeThreadPool {
    fn drop(&mut self) {
        // SAFETY: contexts hold an `Arc` of the pool, so no context uses it any more.
        unsafe { sys::ggml_threadpool_free(self.0.as_ptr()) }
    }
}
