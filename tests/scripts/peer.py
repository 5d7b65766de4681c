"""llama.cpp's own server, as the Python package `xllamacpp` carries it, for `artel bench --against`.

python peer.py MODEL.gguf [THREADS [SLOTS [CONTEXT [BATCH [ADAPTERS]]]]]

Prints the address that it listens on; ends with its standard input. SLOTS and BATCH of 0 are the server's defaults; ADAPTERS is
a directory, whose GGUF files are loaded in the order of their names.
"""
import pathlib
import sys

import xllamacpp


def main(model, threads="2", slots="0", context="16384", batch="0", adapters=""):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.cpuparams.n_threads = int(threads)
    params.cpuparams_batch.n_threads = int(threads)
    params.n_ctx = int(context)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = 0
    if int(slots):
        params.n_parallel = int(slots)
    if int(batch):
        params.n_batch = params.n_ubatch = int(batch)
    loras = []
    for file in sorted(pathlib.Path(adapters).glob("*.gguf")) if adapters else []:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = str(file), 0.0
        loras.append(lora)
    params.lora_adapters = loras
    params.lora_init_without_apply = bool(loras)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
