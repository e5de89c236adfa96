cimport cython

from pgweir.protocol.cancel_keys cimport KeyRing, make_key
from pgweir.protocol cimport framing


cdef class Cancels:
    cdef public object _pooler, peers
    cdef public KeyRing keys, console_keys
    cdef public bytes _noise
    cdef public Py_ssize_t _noise_at

    @cython.locals(start=Py_ssize_t)
    cdef bytes _random(self, Py_ssize_t size)
    cpdef bytes new_key(self, int minor)
    cpdef bytes give_key(self, client, int minor)
