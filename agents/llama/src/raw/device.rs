//! ggml's devices, under names that stay the same.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use llama_cpp_sys_2 as sys;

use super::start;

/// A server that does not answer within this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// A device that ggml can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Such as `CPU`, `CUDA0` or `RPC[127.0.0.1:50052]`; the second device of a server is `RPC[127.0.0.1:50052]#1`.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// ggml's backend, such as `CPU` or `CUDA`.
    pub backend: String,
    /// What sort it is.
    pub kind: Kind,
    /// Where it sits on the PCI bus, such as `0000:01:00.0`, if its backend knows.
    pub bus: Option<String>,
    /// All of its memory in bytes.
    pub memory_total: u64,
    /// Its free memory in bytes.
    pub memory_free: u64,
}

/// What sort a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The processor.
    Cpu,
    /// A graphics processor with memory of its own.
    Gpu,
    /// One that shares the machine's memory.
    IntegratedGpu,
    /// Something that helps the processor.
    Accelerator,
    /// A device of another machine.
    Rpc,
}

/// The devices that ggml sees in this process.
pub fn devices() -> Vec<Device> {
    all().into_iter().map(|(device, _)| device).collect()
}

/// Adds the devices of an RPC server, `host:port`, to those of this process.
///
/// # Errors
/// If nobody answers there, or not as an RPC server does. One that stops answering later ends the process: llama.cpp aborts.
pub fn add_rpc(address: &str) -> Result<(), String> {
    start();
    let resolved = address.to_socket_addrs().map_err(|e| format!("RPC server {address}: {e}"))?;
    let mut refused = format!("RPC server {address}: the name has no address");
    let reached = resolved.into_iter().any(|at| match TcpStream::connect_timeout(&at, CONNECT) {
        Ok(_) => true,
        Err(e) => {
            refused = format!("RPC server {address}: {e}");
            false
        }
    });
    if !reached {
        return Err(refused);
    }
    let no_rpc = || "llama.cpp was built without RPC".to_owned();
    let endpoint = CString::new(address).map_err(|_| format!("`{}` is no address", address.escape_debug()))?;
    // SAFETY: names are C strings; the function has the type that ggml-rpc.h gives it; null is checked. Registering a server
    // twice gives the same registry.
    unsafe {
        let rpc = sys::ggml_backend_reg_by_name(c"RPC".as_ptr());
        if rpc.is_null() {
            return Err(no_rpc());
        }
        let add = sys::ggml_backend_reg_get_proc_address(rpc, c"ggml_backend_rpc_add_server".as_ptr());
        if add.is_null() {
            return Err(no_rpc());
        }
        type Add = unsafe extern "C" fn(*const c_char) -> sys::ggml_backend_reg_t;
        let server = std::mem::transmute::<*mut std::ffi::c_void, Add>(add)(endpoint.as_ptr());
        if server.is_null() {
            return Err(format!("RPC server {address} has no devices"));
        }
        sys::ggml_backend_register(server);
    }
    Ok(())
}

/// Serves devices of this process, by name, to one client on `address`, and ends the process's use: it returns only if it cannot
/// listen.
pub fn serve_rpc(address: &str, threads: u32, names: &[String]) -> Result<(), String> {
    start();
    let mut devices = pick(names)?;
    let endpoint = CString::new(address).map_err(|_| format!("`{}` is no address", address.escape_debug()))?;
    // SAFETY: as in `add_rpc`; the devices outlive the call, which copies them.
    unsafe {
        let rpc = sys::ggml_backend_reg_by_name(c"RPC".as_ptr());
        let serve = if rpc.is_null() {
            std::ptr::null_mut()
        } else {
            sys::ggml_backend_reg_get_proc_address(rpc, c"ggml_backend_rpc_start_server".as_ptr())
        };
        if serve.is_null() {
            return Err("llama.cpp was built without RPC".to_owned());
        }
        type Serve = unsafe extern "C" fn(*const c_char, *const c_char, usize, usize, *mut sys::ggml_backend_dev_t);
        let serve = std::mem::transmute::<*mut std::ffi::c_void, Serve>(serve);
        serve(endpoint.as_ptr(), std::ptr::null(), threads as usize, devices.len(), devices.as_mut_ptr());
    }
    Err(format!("llama.cpp's RPC server cannot listen on {address}"))
}

/// The devices of these names, in this order.
pub(crate) fn pick(names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, String> {
    let all = all();
    let find = |name: &String| {
        let found = all.iter().find(|(device, _)| device.name == *name);
        found.map(|(_, pointer)| *pointer).ok_or_else(|| {
            let there: Vec<&str> = all.iter().map(|(device, _)| device.name.as_str()).collect();
            format!("there is no device `{name}`; there are {}", there.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn all() -> Vec<(Device, sys::ggml_backend_dev_t)> {
    start();
    let mut servers = HashMap::new();
    // SAFETY: devices are registered for good, and their names live as long; each index is below the count.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| sys::ggml_backend_dev_get(index))
            .map(|pointer| (describe(pointer, &mut servers), pointer))
            .collect()
    }
}

/// # Safety
/// The pointer is a registered device.
unsafe fn describe(pointer: sys::ggml_backend_dev_t, servers: &mut HashMap<String, u32>) -> Device {
    // SAFETY: the caller's; strings of devices are null or C strings that live as long as they do; the properties are plain
    // numbers and pointers, which may all be zero.
    unsafe {
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        let backend = text(sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(pointer)));
        let description = text(sys::ggml_backend_dev_description(pointer));
        let mut props: sys::ggml_backend_dev_props = std::mem::zeroed();
        sys::ggml_backend_dev_get_props(pointer, &raw mut props);
        let bus = Some(text(props.device_id)).filter(|bus| !bus.is_empty());
        let (name, kind) = if backend == "RPC" {
            let number = servers.entry(description.clone()).or_insert(0);
            let name = rpc_name(&description, *number);
            *number += 1;
            (name, Kind::Rpc)
        } else {
            let kind = match sys::ggml_backend_dev_type(pointer) {
                sys::GGML_BACKEND_DEVICE_TYPE_CPU => Kind::Cpu,
                sys::GGML_BACKEND_DEVICE_TYPE_GPU => Kind::Gpu,
                sys::GGML_BACKEND_DEVICE_TYPE_IGPU => Kind::IntegratedGpu,
                _ => Kind::Accelerator,
            };
            (text(sys::ggml_backend_dev_name(pointer)), kind)
        };
        let (memory_total, memory_free) = (props.memory_total as u64, props.memory_free as u64);
        Device { name, description, backend, kind, bus, memory_total, memory_free }
    }
}

/// The name of a server's device; ggml numbers them in the order in which a process came to know them.
fn rpc_name(address: &str, number: u32) -> String {
    if number == 0 { format!("RPC[{address}]") } else { format!("RPC[{address}]#{number}") }
}

/// The device in whose memory a buffer of this kind lies, as ggml names kinds.
pub(crate) fn device_of(place: &str) -> String {
    let rpc = place.strip_prefix("RPC").and_then(|rest| rest.split_once('['));
    if let Some((number, address)) = rpc {
        return rpc_name(address.trim_end_matches(']'), number.parse().unwrap_or(0));
    }
    if place.starts_with("CPU") || place.ends_with("_Host") { "CPU".to_owned() } else { place.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_belong_to_devices() {
        for (place, device) in [
            ("CPU_Mapped", "CPU"),
            ("CPU_REPACK", "CPU"),
            ("CUDA_Host", "CPU"),
            ("CUDA1", "CUDA1"),
            ("RPC0[127.0.0.1:50052]", "RPC[127.0.0.1:50052]"),
            ("RPC1[box:1]", "RPC[box:1]#1"),
        ] {
            assert_eq!(device_of(place), device);
        }
    }

    #[test]
    fn nobody_answers_at_a_closed_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = add_rpc(&address).unwrap_err();
        assert!(error.contains(&address), "{error}");
        assert!(pick(&["CUDA7".to_owned()]).unwrap_err().contains("there are CPU"));
    }
}
