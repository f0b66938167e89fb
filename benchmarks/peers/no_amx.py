"""Runs as on a processor without AMX: the kernel refuses this process and its children the tiles' registers.

Linux hands AMX's registers only to a process that asks (``arch_prctl(ARCH_REQ_XCOMP_PERM)``, kernel documentation
``arch/x86/xstate.rst``). Libraries that use AMX ask when they start and take AVX-512 when they are refused; a seccomp
filter refuses. The machines that models run on at home have no AMX, so this is the nearer comparison on a server.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_ARCH_PRCTL, _REQUEST = 158, 0x1023
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_X86_64 = 0xC000003E
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


_RULES = (
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_EQUAL, 0, 5, _X86_64),
    (_LOAD, 0, 0, _NUMBER),
    (_EQUAL, 0, 3, _ARCH_PRCTL),
    (_LOAD, 0, 0, _FIRST_ARGUMENT),
    (_EQUAL, 0, 1, _REQUEST),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ALLOW),
)


def refuse_amx() -> None:
    """Refuse AMX to this process and to all that it starts, for good; it must not have used AMX before.

    Raises:
        OSError: The kernel takes no filter.
        RuntimeError: Not Linux on x86-64.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RuntimeError("AMX can be refused on Linux on x86-64 alone")
    libc = ctypes.CDLL(None, use_errno=True)
    rules = (_Instruction * len(_RULES))(*(_Instruction(*rule) for rule in _RULES))
    program = _Program(len(_RULES), rules)
    for call in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
