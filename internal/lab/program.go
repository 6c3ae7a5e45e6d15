package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// WriteProgram writes a file that is to be run. Another process does it: a program that this one starts at the same moment, for another test,
// has the file open for writing until its own execve(2), and who runs it meanwhile gets ETXTBSY.
func WriteProgram(t testing.TB, path string, content []byte, mode os.FileMode) {
	t.Helper()
	cmd := exec.Command("install", "-m", fmt.Sprintf("%o", mode), "/dev/stdin", path)
	cmd.Stdin = bytes.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write the program %s: %v: %s", path, err, out)
	}
}
