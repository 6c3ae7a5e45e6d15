package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// A journal of the test's own lies where the journal does, in a mount namespace that only the writer's process is in.
func TestJournal(t *testing.T) {
	if os.Getenv("CULVERT_JOURNAL_TEST") != "" {
		write(t)
		return
	}
	lab.NeedRoot(t) // who can have a mount namespace with a journal of its own
	read, stream, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer stream.Close()
	st, err := stream.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestJournal$", "-test.v")
	cmd.Env = append(os.Environ(), "CULVERT_JOURNAL_TEST=1", fmt.Sprintf("JOURNAL_STREAM=%d:%d", sys.Dev, sys.Ino))
	cmd.Stderr = stream
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	stream.Close()
	if text, err := io.ReadAll(read); err != nil || string(text) != "<4>nobody listens k=1\n" {
		t.Errorf("the stream got %q, %v", text, err)
	}
}

// write is the test in its own namespace.
func write(t *testing.T) {
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("run", "/run", "tmpfs", 0, ""),
		os.MkdirAll("/run/systemd/journal", 0o755)); err != nil {
		t.Fatal(err)
	}
	if Available() {
		t.Error("available without a socket")
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if !Available() {
		t.Error("not available")
	}
	var level slog.LevelVar
	log := slog.New(NewHandler("site", &level))
	log.Debug("hidden")
	expect(t, socket, func() { log.Info("up", "pid", 7) }, map[string]string{
		"MESSAGE": "up pid=7", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "culvert", "CULVERT_INSTANCE": "site", "CULVERT_PID": "7"})
	level.Set(slog.LevelDebug)
	of := log.With("interface", "wg0").WithGroup("tcp")
	expect(t, socket, func() { of.Debug("two\nlines", "error", errors.New("it\nfailed"), slog.Group("in", "ä-b", true)) }, map[string]string{
		"MESSAGE": "two\nlines interface=wg0 tcp_error=\"it\\nfailed\" tcp_in_ä-b=true", "PRIORITY": "7", "SYSLOG_IDENTIFIER": "culvert",
		"CULVERT_INSTANCE": "site", "CULVERT_INTERFACE": "wg0", "CULVERT_TCP_ERROR": "it\nfailed", "CULVERT_TCP_IN___B": "true"})
	long := strings.Repeat("x", 2*maxField)
	cut := long[:maxField] + " (cut)"
	expect(t, socket, func() { log.Error(long, "k", long) }, map[string]string{"MESSAGE": cut, "PRIORITY": "3", "SYSLOG_IDENTIFIER": "culvert",
		"CULVERT_INSTANCE": "site", "CULVERT_K": cut})
	expect(t, socket, func() { log.Warn("w", "empty", "") }, map[string]string{"MESSAGE": "w empty=\"\"", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "culvert",
		"CULVERT_INSTANCE": "site", "CULVERT_EMPTY": ""})
	socket.Close()
	log.Warn("nobody\nlistens", "k", 1)
}

// expect fails unless what is logged are these fields.
func expect(t *testing.T, socket *net.UnixConn, f func(), want map[string]string) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	b, oob := make([]byte, 1<<20), make([]byte, 1024)
	socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	n, oobn, _, _, err := socket.ReadMsgUnix(b, oob)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	b = b[:n]
	if oobn > 0 { // too long for a datagram: in a file
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "entry")
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		b = make([]byte, st.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for len(b) > 0 {
		line, rest, _ := strings.Cut(string(b), "\n")
		if name, value, ok := strings.Cut(line, "="); ok {
			got[name], b = value, []byte(rest)
			continue
		}
		size := binary.LittleEndian.Uint64([]byte(rest))
		got[line], b = rest[8:8+size], []byte(rest[8+size+1:])
	}
	if !maps.Equal(got, want) {
		t.Errorf("the journal got %.300q\nwant %.300q", got, want)
	}
}
