cimport cython

from pgweir.net.stream cimport Stream
from pgweir.net.streams cimport Streams
from pgweir.session.client_login cimport accepted
from pgweir.session.parts cimport Parts


cdef class _Newcomers:
    cdef public Parts _pooler
    cdef public Streams _streams
    cdef public object _address, _port

    @cython.locals(stream=Stream)
    cpdef accept(self, int number, host, port)
