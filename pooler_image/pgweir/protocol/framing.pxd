# The compiled form of these functions, put in line by those rooms that cimport them. Like the plain one `unpack_header` reads an
# unsigned length, and raises when there is no whole header. Positions are never negative.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr


cdef inline (int, Py_ssize_t) unpack_header(bytes data, Py_ssize_t pos) except *:
    if pos < 0 or len(data) - pos < 5:
        raise ValueError("no whole header")
    cdef const unsigned char* at = <const unsigned char*> <const char*> data + pos
    return at[0], (<Py_ssize_t> at[1] << 24) | (<Py_ssize_t> at[2] << 16) | (<Py_ssize_t> at[3] << 8) | at[4]


cdef inline bytes pack_header(int kind, Py_ssize_t length):
    if not 0 <= kind < 256 or not 0 <= length < <Py_ssize_t> 1 << 32:
        raise ValueError("no header says that")
    cdef unsigned char header[5]
    header[0] = kind
    header[1] = length >> 24
    header[2] = length >> 16 & 255
    header[3] = length >> 8 & 255
    header[4] = length & 255
    return PyBytes_FromStringAndSize(<const char*> header, 5)


cdef inline bytes cut(bytes data, Py_ssize_t start, Py_ssize_t end):
    end = min(end, len(data))
    if not 0 <= start < end:
        return b""
    return PyBytes_FromStringAndSize(<const char*> data + start, end - start)


cdef inline Py_ssize_t find_zero(bytes data, Py_ssize_t start, Py_ssize_t end) except -2:
    end = min(end, len(data))
    if not 0 <= start < end:
        return -1
    cdef const char* first = <const char*> data
    cdef const char* found = <const char*> memchr(first + start, 0, end - start)
    return found - first if found != NULL else -1
