# The functions of `calls` in C, put in line by `streams`. They hold the interpreter's lock, but for a `wait` that may take long
# while there are other threads who may want it.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.ref cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    int accept4(int, sockaddr*, socklen_t*, int)
    int AF_INET, AF_INET6, MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK

# PERF: glibc's own functions of these names do two atomic exchanges each, as soon as there was a second thread: it might be
# cancelled. Nobody cancels ours.
cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #define plain_recv(number, buffer, size, flags) syscall(SYS_recvfrom, number, buffer, size, flags, NULL, NULL)
    #define plain_send(number, data, size, flags) syscall(SYS_sendto, number, data, size, flags, NULL, 0)
    #define plain_wait(number, events, most, patience) (int) syscall(SYS_epoll_pwait, number, events, most, patience, NULL, 0)
    """
    ssize_t c_recv "plain_recv"(int, void*, size_t, int) nogil
    ssize_t c_send "plain_send"(int, const void*, size_t, int) nogil
    int epoll_pwait "plain_wait"(int, epoll_event*, int, int) nogil

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState
    ctypedef struct PyThreadState
    PyInterpreterState* PyInterpreterState_Get()
    PyThreadState* PyInterpreterState_ThreadHead(PyInterpreterState*)
    PyThreadState* PyThreadState_Next(PyThreadState*)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t ntohs(uint16_t)
    const char* inet_ntop(int, const void*, char*, socklen_t)


cdef inline bint is_alone():
    # No other thread of Python's is there to want the interpreter's lock.
    return PyThreadState_Next(PyInterpreterState_ThreadHead(PyInterpreterState_Get())) == NULL


cdef inline epoll_event* event_at(bytearray found, int place) except NULL:
    if place < 0 or PyByteArray_GET_SIZE(found) < (place + 1) * <Py_ssize_t> sizeof(epoll_event):
        raise ValueError("no such place among what has happened")
    return <epoll_event*> PyByteArray_AS_STRING(found) + place


cdef inline int wait(object epoll, int number, bytearray found, int patience) except -2:
    cdef epoll_event* events = event_at(found, 63) - 63
    cdef int count
    if not patience or is_alone():
        return epoll_pwait(number, events, 64, patience)
    with nogil:
        count = epoll_pwait(number, events, 64, patience)
    return count


cdef inline int whose(bytearray found, int place) except -1:
    return event_at(found, place).data.fd


cdef inline unsigned int what(bytearray found, int place) except? 0:
    return event_at(found, place).events


cdef inline Py_ssize_t fill(int number, bytearray buffer) except -2:
    cdef ssize_t size = c_recv(number, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), MSG_DONTWAIT)
    if size < 0 and errno != EAGAIN and errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return size


cdef inline bytes cut(bytearray buffer, Py_ssize_t size):
    if size < 0 or size > PyByteArray_GET_SIZE(buffer):
        raise ValueError("no such place in the buffer")
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size)


cdef inline bytes receive(int number, bytearray buffer):
    cdef Py_ssize_t size = fill(number, buffer)
    return cut(buffer, size) if size >= 0 else None


cdef inline Py_ssize_t send(int number, bytes data, Py_ssize_t start) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - start
    cdef ssize_t sent
    if start < 0 or size < 0:
        raise ValueError("no such place in the data")
    sent = c_send(number, PyBytes_AS_STRING(data) + start, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent >= 0:
        return sent
    if errno == EAGAIN or errno == EINTR:
        return 0
    PyErr_SetFromErrno(OSError)


cdef inline tuple accept(int number):
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef char host[64]
    cdef const void* ip
    cdef int port
    cdef int found = accept4(number, <sockaddr*> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if found < 0:
        if errno == EAGAIN or errno == EINTR:
            return None
        PyErr_SetFromErrno(OSError)
    if address.ss_family == AF_INET:
        ip = <const void*> &(<sockaddr_in*> &address).sin_addr
        port = ntohs((<sockaddr_in*> &address).sin_port)
    elif address.ss_family == AF_INET6:
        ip = <const void*> &(<sockaddr_in6*> &address).sin6_addr
        port = ntohs((<sockaddr_in6*> &address).sin6_port)
    else:
        return found, "", 0
    if inet_ntop(address.ss_family, ip, host, sizeof(host)) == NULL:
        return found, "", 0
    return found, (<bytes> host).decode("ascii"), port


# --- libuv's functions, by their addresses

cdef inline int ask(size_t function, size_t argument) noexcept:
    return (<int (*)(size_t) noexcept> <void*> function)(argument)


cdef inline int ask_both(size_t function, size_t one, size_t other) noexcept:
    return (<int (*)(size_t, size_t) noexcept> <void*> function)(one, other)


cdef inline void tell(size_t function, size_t argument) noexcept:
    (<void (*)(size_t) noexcept> <void*> function)(argument)


cdef inline void tell_both(size_t function, size_t one, size_t other) noexcept:
    (<void (*)(size_t, size_t) noexcept> <void*> function)(one, other)


cdef inline void called(size_t handle) noexcept with gil:
    (<object> (<PyObject**> <void*> handle)[-1])()


cdef inline tuple hook(size_t handle, object call):
    (<PyObject**> <void*> handle)[-1] = <PyObject*> call
    return <size_t> <void*> called, call
