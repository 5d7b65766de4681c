"""llama.cpp's own server, as the Python package `xllamacpp` carries it, for `artel bench --against`.

python peer.py MODEL.gguf [THREADS [SLOTS [CONTEXT]]]    prints the address that it listens on; ends with its standard input.
"""
import sys

import xllamacpp


def main(model, threads="2", slots="0", context="16384"):
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
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
