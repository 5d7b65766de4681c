//! The environment of the processes that the daemon starts.

use std::env;
use std::ffi::{OsStr, OsString};

/// The variables that such a process needs, by their whole names.
const NAMES: [&str; 21] = [
    "ARTEL_LOG",
    "ARTEL_LOG_FORMAT",
    "DRI_PRIME",
    "GLIBC_TUNABLES",
    "HOME",
    "JOURNAL_STREAM",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_MIN_STACK",
    "SHELL",
    "TEMP",
    "TMP",
    "TMPDIR",
    "TZ",
    "USER",
    "LLVM_PROFILE_FILE",
];
/// The same by the beginnings of their names: libraries, compilers of kernels, drivers and tools that look for errors.
const PREFIXES: [&str; 37] = [
    "AMD_",
    "ANV_",
    "ASAN_",
    "BLIS_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "DYLD_",
    "GGML_",
    "GOMP_",
    "GPU_",
    "HIP_",
    "HSA_",
    "KMP_",
    "LC_",
    "LD_",
    "LIBGL_",
    "LLAMA_",
    "LSAN_",
    "MALLOC_",
    "MESA_",
    "METAL_",
    "MKL_",
    "MTL_",
    "NCCL_",
    "NVIDIA_",
    "OMP_",
    "ONEAPI_",
    "OPENBLAS_",
    "RADV_",
    "ROCBLAS_",
    "ROCM_",
    "ROCR_",
    "SYCL_",
    "UBSAN_",
    "VK_",
    "XDG_",
];

/// What a process of ours inherits of this one's environment. Everything else stays here: a variable that is not known may be
/// a secret, and a process of ours needs none.
pub(crate) fn inherited() -> Vec<(OsString, OsString)> {
    env::vars_os().filter(|(name, _)| is_inherited(name)).collect()
}

fn is_inherited(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libraries_and_drivers_read_is_inherited_and_secrets_are_not() {
        for name in ["PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "XDG_CACHE_HOME", "LC_ALL"] {
            assert!(is_inherited(name.as_ref()), "{name}");
        }
        let secrets = ["HF_TOKEN", "ARTEL_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "CREDENTIALS_DIRECTORY"];
        for name in secrets.into_iter().chain(["HTTPS_PROXY", "PATHS", "", "ARTEL_DATA"]) {
            assert!(!is_inherited(name.as_ref()), "{name}");
        }
    }
}
