//! ggml's devices, under stable names.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use artel_model::DeviceKind;
use llama_cpp_sys_2 as sys;

use super::process::init;
use crate::error::DeviceError;

/// A server that does not accept a connection within this time counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A device that ggml can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendDevice {
    /// Such as `CPU`, `CUDA0` or `RPC[127.0.0.1:50052]`; the second device of a server is `RPC[127.0.0.1:50052]#1`.
    pub name: String,
    /// A human-readable description, such as the name of the hardware.
    pub description: String,
    /// ggml's backend, such as `CPU` or `CUDA`.
    pub backend: String,
    /// The kind of device.
    pub kind: DeviceKind,
    /// The PCI bus id, such as `0000:01:00.0`, if the backend reports it.
    pub pci_bus_id: Option<String>,
    /// Its total memory in bytes.
    pub total_memory: u64,
    /// Its free memory in bytes.
    pub free_memory: u64,
}

/// The devices that ggml sees in this process.
pub fn devices() -> Vec<BackendDevice> {
    all().into_iter().map(|(device, _)| device).collect()
}

/// Adds the devices of an RPC server, `host:port`, to those of this process.
///
/// # Errors
/// If the address is unreachable or has no RPC server. A server that fails later ends this process, because llama.cpp aborts.
pub fn add_rpc_server(address: &str) -> Result<(), DeviceError> {
    init();
    let named = || address.to_owned();
    let resolved = address.to_socket_addrs().map_err(|source| DeviceError::Resolve { address: named(), source })?;
    let mut failure = DeviceError::NoAddress { address: named() };
    let is_reachable = resolved.into_iter().any(|at| match TcpStream::connect_timeout(&at, CONNECT_TIMEOUT) {
        Ok(_) => true,
        Err(source) => {
            failure = DeviceError::Connect { address: named(), source };
            false
        }
    });
    if !is_reachable {
        return Err(failure);
    }
    let endpoint = endpoint(address)?;
    // SAFETY: names are C strings; the function has the type declared in ggml-rpc.h; null is checked. Registering a server twice
    // returns the same registry.
    unsafe {
        let rpc = sys::ggml_backend_reg_by_name(c"RPC".as_ptr());
        if rpc.is_null() {
            return Err(DeviceError::NoRpc);
        }
        let add = sys::ggml_backend_reg_get_proc_address(rpc, c"ggml_backend_rpc_add_server".as_ptr());
        if add.is_null() {
            return Err(DeviceError::NoRpc);
        }
        type AddServerFn = unsafe extern "C" fn(*const c_char) -> sys::ggml_backend_reg_t;
        let server = std::mem::transmute::<*mut std::ffi::c_void, AddServerFn>(add)(endpoint.as_ptr());
        if server.is_null() {
            return Err(DeviceError::NoDevices { address: named() });
        }
        sys::ggml_backend_register(server);
    }
    Ok(())
}

/// Serves devices of this process, by name, on `address`, to one client at a time. Returns only if it cannot listen.
pub fn serve_rpc(address: &str, threads: u32, names: &[String]) -> Result<(), DeviceError> {
    init();
    let mut devices = find_by_name(names)?;
    let endpoint = endpoint(address)?;
    // SAFETY: as in `add_rpc_server`; the devices outlive the call, which copies the list.
    unsafe {
        let rpc = sys::ggml_backend_reg_by_name(c"RPC".as_ptr());
        let serve = if rpc.is_null() {
            std::ptr::null_mut()
        } else {
            sys::ggml_backend_reg_get_proc_address(rpc, c"ggml_backend_rpc_start_server".as_ptr())
        };
        if serve.is_null() {
            return Err(DeviceError::NoRpc);
        }
        type StartServerFn =
            unsafe extern "C" fn(*const c_char, *const c_char, usize, usize, *mut sys::ggml_backend_dev_t);
        let serve = std::mem::transmute::<*mut std::ffi::c_void, StartServerFn>(serve);
        serve(endpoint.as_ptr(), std::ptr::null(), threads as usize, devices.len(), devices.as_mut_ptr());
    }
    Err(DeviceError::Listen { address: address.to_owned() })
}

fn endpoint(address: &str) -> Result<CString, DeviceError> {
    CString::new(address).map_err(|_| DeviceError::InvalidAddress { address: address.to_owned() })
}

/// Finds devices by name, in the order of the names.
pub(crate) fn find_by_name(names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, DeviceError> {
    let all = all();
    let find = |name: &String| {
        let found = all.iter().find(|(device, _)| device.name == *name);
        found.map(|(_, pointer)| *pointer).ok_or_else(|| {
            let available = all.iter().map(|(device, _)| device.name.clone()).collect();
            DeviceError::Unknown { name: name.clone(), available }
        })
    };
    names.iter().map(find).collect()
}

fn all() -> Vec<(BackendDevice, sys::ggml_backend_dev_t)> {
    init();
    let mut servers = HashMap::new();
    // SAFETY: devices and their names are never unregistered; each index is below the count.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| sys::ggml_backend_dev_get(index))
            .map(|pointer| (describe(pointer, &mut servers), pointer))
            .collect()
    }
}

/// # Safety
/// The pointer is a registered device.
unsafe fn describe(pointer: sys::ggml_backend_dev_t, servers: &mut HashMap<String, u32>) -> BackendDevice {
    // SAFETY: the caller passes a registered device; its strings are null or C strings that live as long as the device; the
    // properties are numbers and pointers, for which zero is valid.
    unsafe {
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        let backend = text(sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(pointer)));
        let description = text(sys::ggml_backend_dev_description(pointer));
        let mut props: sys::ggml_backend_dev_props = std::mem::zeroed();
        sys::ggml_backend_dev_get_props(pointer, &raw mut props);
        let pci_bus_id = Some(text(props.device_id)).filter(|id| !id.is_empty());
        let (name, kind) = if backend == "RPC" {
            let number = servers.entry(description.clone()).or_insert(0);
            let name = rpc_name(&description, *number);
            *number += 1;
            (name, DeviceKind::Rpc)
        } else {
            let kind = match sys::ggml_backend_dev_type(pointer) {
                sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
                sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
                sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
                _ => DeviceKind::Accelerator,
            };
            (text(sys::ggml_backend_dev_name(pointer)), kind)
        };
        let (total_memory, free_memory) = (props.memory_total as u64, props.memory_free as u64);
        BackendDevice { name, description, backend, kind, pci_bus_id, total_memory, free_memory }
    }
}

/// The name of a device of an RPC server. ggml numbers RPC devices in the order in which a process registers them, so its
/// names are not stable.
fn rpc_name(address: &str, number: u32) -> String {
    if number == 0 { format!("RPC[{address}]") } else { format!("RPC[{address}]#{number}") }
}

/// The device that holds buffers of a ggml buffer type, by the name of the type.
pub(crate) fn device_of(buffer_type: &str) -> String {
    let rpc = buffer_type.strip_prefix("RPC").and_then(|rest| rest.split_once('['));
    if let Some((number, address)) = rpc {
        return rpc_name(address.trim_end_matches(']'), number.parse().unwrap_or(0));
    }
    if buffer_type.starts_with("CPU") || buffer_type.ends_with("_Host") {
        "CPU".to_owned()
    } else {
        buffer_type.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_types_map_to_devices() {
        for (buffer_type, device) in [
            ("CPU_Mapped", "CPU"),
            ("CPU_REPACK", "CPU"),
            ("CUDA_Host", "CPU"),
            ("CUDA1", "CUDA1"),
            ("RPC0[127.0.0.1:50052]", "RPC[127.0.0.1:50052]"),
            ("RPC1[box:1]", "RPC[box:1]#1"),
        ] {
            assert_eq!(device_of(buffer_type), device);
        }
    }

    #[test]
    fn a_closed_port_and_an_unknown_device_are_errors() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = add_rpc_server(&address).unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
        assert!(matches!(error, DeviceError::Connect { .. }), "{error}");
        assert!(find_by_name(&["CUDA7".to_owned()]).unwrap_err().to_string().contains("available: CPU"));
    }
}
