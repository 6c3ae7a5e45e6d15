package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"culvert/server"
	"culvert/server/boltstore"
)

// clientDir is where servers keep what they know of their clients. No instance has a name with a dot first, so that it is none's
// journal.
func (p *program) clientDir() string { return filepath.Join(p.stateDir, ".server") }

// clientFile is the file of an instance for its clients, and its audit log, both opened when the first tunnel needs them.
type clientFile struct {
	file  *boltstore.File
	log   *os.File
	audit *server.AuditLog
}

// clientStore is what one tunnel has of them.
type clientStore struct {
	store server.Store
	audit *server.AuditLog
}

func (c *clientFile) tunnel(dir, instance, tunnel string) (*clientStore, error) {
	if c.file == nil {
		file, err := boltstore.Open(filepath.Join(dir, instance+".db"))
		if err != nil {
			return nil, permissionHint(fmt.Errorf("cannot open what is known of the clients: %w", err))
		}
		path := filepath.Join(dir, instance+".audit.jsonl")
		log, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
		if err == nil {
			err = endLine(log)
		}
		if err != nil {
			return nil, errors.Join(permissionHint(fmt.Errorf("cannot open the audit log: %w", err)), file.Close())
		}
		c.file, c.log, c.audit = file, log, server.NewAuditLog(log)
	}
	return &clientStore{c.file.Tunnel(tunnel), c.audit}, nil
}

// endLine ends the last line of a log, where a crash or a full disk has left it in part. A disk that is full now is told of when something
// is to be written.
func endLine(f *os.File) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	if _, err := f.Write([]byte{'\n'}); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

func (c *clientFile) close() {
	if c.file != nil {
		c.file.Close()
		c.log.Close()
		*c = clientFile{}
	}
}
