# The compiled form of `unpack_header`, put in line by those rooms that cimport it. Like the plain one it reads an unsigned
# length, and raises when there is no whole header.

cdef inline (int, Py_ssize_t) unpack_header(bytes data, Py_ssize_t pos) except *:
    if pos < 0 or len(data) - pos < 5:
        raise ValueError("no whole header")
    cdef const unsigned char* at = <const unsigned char*> <const char*> data + pos
    return at[0], (<Py_ssize_t> at[1] << 24) | (<Py_ssize_t> at[2] << 16) | (<Py_ssize_t> at[3] << 8) | at[4]


cdef inline bytes cut(bytes data, Py_ssize_t start, Py_ssize_t end):
    end = min(end, len(data))
    if not 0 <= start <= end:
        return b""
    return (<const char*> data)[start:end]
