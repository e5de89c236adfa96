from pgweir.protocol.cancel_keys cimport KeyRing, make_key


cdef class Cancels:
    cdef public object _pooler, peers
    cdef public KeyRing keys, console_keys

    cpdef bytes new_key(self, int minor)
    cpdef bytes give_key(self, client, int minor)
