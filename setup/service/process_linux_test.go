package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sleeper is a process with a mark.
func sleeper(t *testing.T, mark string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = []string{"A=b", markVariable + "=" + mark}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestOnlyTheMarkedProcessIsFound(t *testing.T) {
	mark, other := newMark(), newMark()
	cmd := sleeper(t, mark)
	pid := cmd.Process.Pid
	began, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pid   int
		start uint64
		mark  string
		want  bool
	}{
		"it":                {pid, began, mark, true},
		"any start":         {pid, 0, mark, true},
		"another start":     {pid, began + 1, mark, false},
		"another mark":      {pid, began, other, false},
		"part of the mark":  {pid, began, mark[:len(mark)-1], false},
		"another process":   {os.Getpid(), 0, mark, false},
		"no process":        {0, 0, mark, false},
		"a group":           {-pid, 0, mark, false},
		"a number too high": {1 << 30, 0, mark, false},
	} {
		p, ok := find(c.pid, c.start, c.mark)
		if ok != c.want {
			t.Errorf("%s: found %v", name, ok)
		}
		if ok {
			p.close()
		}
	}
	p, ok := find(pid, began, mark)
	if !ok {
		t.Fatal("not found")
	}
	defer p.close()
	p.watch()
	if awaitExit(p.fd, 10*time.Millisecond) {
		t.Error("it is said to have ended")
	}
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	<-p.ended()
	cmd.Wait()
	// Its number is free now; the descriptor still means who had it.
	if err := p.kill(); err != nil {
		t.Errorf("a signal to who has ended: %v", err)
	}
	if _, ok := find(pid, began, mark); ok {
		t.Error("found after its end")
	}
}

func TestSweep(t *testing.T) {
	mark, other := newMark(), newMark()
	a, b, c := sleeper(t, mark), sleeper(t, mark), sleeper(t, other)
	if err := sweep(mark); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{a, b} {
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("%v", err)
		}
	}
	if err := syscall.Kill(c.Process.Pid, 0); err != nil {
		t.Error("one with another mark was ended")
	}
}

// TestOutput: the writer goes on without a reader, loses only what does not fit, and the next reader gets the rest.
func TestOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	var got collector
	o, err := openOutput(path, &got)
	if err != nil {
		t.Fatal(err)
	}
	writer := exec.Command("sh", "-c", `echo one; read line; echo two; dd if=/dev/zero bs=1000 count=1000 2>/dev/null; echo "$?" >&2`)
	out, err := openFIFO(path)
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var code collector
	writer.Stdout, writer.Stderr = out, &code
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	for len(got.text()) < 4 {
		time.Sleep(time.Millisecond)
	}
	o.close()
	stdin.Write([]byte("\n"))
	if err := writer.Wait(); err != nil || code.text() == "0\n" {
		t.Errorf("the writer: %v, dd ended with %q: its output should not have fitted", err, code.text())
	}
	if got.text() != "one\n" {
		t.Errorf("%q", got.text())
	}
}

// TestOutputIsDrained: what a program said last is there when its end is known.
func TestOutputIsDrained(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	var got collector
	o, err := openOutput(path, &got)
	if err != nil {
		t.Fatal(err)
	}
	out, err := openFIFO(path)
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString("last words")
	o.drain()
	if got.text() != "last words" {
		t.Errorf("%q", got.text())
	}
	out.Close()
	o.close()
	if err := os.WriteFile(path+"2", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openOutput(path+"2", &got); err == nil {
		t.Error("a plain file was taken for a FIFO")
	}
}
