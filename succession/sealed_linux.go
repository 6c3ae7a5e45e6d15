package succession

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// seals keep the size as it is, and themselves: who reads cannot be surprised. Writing stays possible, for the content to be erased.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Seal puts a secret into sealed memory that has no name anywhere, and is gone with its last descriptor.
func Seal(secret []byte) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("culvert", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("culvert", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "sealed memory")
	_, err = f.Write(secret)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sealed memory: %w", err), Erase(f))
	}
	return f, nil
}

// Unseal returns what Seal was given, of at most limit bytes, in memory of the caller's, and erases the rest.
func Unseal(f *os.File, limit int64) (_ []byte, err error) {
	defer func() { err = errors.Join(err, Erase(f)) }()
	var have int
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) { have, err = unix.FcntlInt(fd, unix.F_GET_SEALS, 0) }); e != nil {
		err = e
	}
	if err != nil || have&seals != seals {
		return nil, errors.Join(errors.New("it is no sealed memory"), err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("sealed memory of %d bytes, more than %d", fi.Size(), limit)
	}
	secret := make([]byte, fi.Size())
	_, err = io.ReadFull(io.NewSectionReader(f, 0, fi.Size()), secret)
	if err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// Erase overwrites the content of sealed memory, whoever has it open, and closes it.
func Erase(f *os.File) error {
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zeroes := make([]byte, min(fi.Size(), 1<<20))
	for at := int64(0); at < fi.Size(); at += int64(len(zeroes)) {
		if _, err := f.WriteAt(zeroes[:min(int64(len(zeroes)), fi.Size()-at)], at); err != nil {
			return fmt.Errorf("sealed memory cannot be erased: %w", err)
		}
	}
	return nil
}
