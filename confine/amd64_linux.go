//go:build amd64

package confine

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_X86_64

var refusedHere = []uintptr{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT}
