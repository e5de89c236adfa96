cimport cython

from pgweir.protocol cimport framing

cdef int HEADER_SIZE


cdef class MessageReader:
    cdef public bytearray _buffer
    cdef public Py_ssize_t _max_size

    cpdef feed(self, bytes data)
    @cython.locals(size=Py_ssize_t, found=cython.int, length=Py_ssize_t)
    cpdef bytes only(self, bytes data, int type_)
