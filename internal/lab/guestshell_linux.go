package lab

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// GuestShell is a script for [GuestOptions] that runs what [Guest.Do] sends, until [Guest.End].
const GuestShell = `
while read -r number text && [ "$number" != end ]; do
	echo "$text" | base64 -d >/tmp/command.$number
	printf '\n<command %s>\n' $number
	sh /tmp/command.$number </dev/null
	printf '\n<command %s ended with %d>\n' $number $?
done
`

// Do runs shell commands in a guest whose script is, or ends with, [GuestShell]. It returns what they wrote and the exit code. The
// error is that the guest ended before.
func (g *Guest) Do(commands string) (output string, code int, err error) {
	g.asked.Lock()
	defer g.asked.Unlock()
	g.number++
	begin, end := fmt.Sprintf("\n<command %d>\n", g.number), fmt.Sprintf("\n<command %d ended with ", g.number)
	if err := g.Send(fmt.Sprintf("%d %s", g.number, base64.StdEncoding.EncodeToString([]byte(commands)))); err != nil {
		return "", 0, err
	}
	ended := g.output.awaitThat(func(data []byte) bool {
		_, rest, found := bytes.Cut(data, []byte(end))
		if !found {
			return false
		}
		number, _, found := bytes.Cut(rest, []byte(">\n"))
		if !found {
			return false
		}
		_, written, _ := bytes.Cut(data, []byte(begin))
		written, _, _ = bytes.Cut(written, []byte(end))
		output = string(written)
		code, err = strconv.Atoi(string(number))
		return true
	})
	if !ended {
		_, _, err = g.Wait()
		return "", 0, fmt.Errorf("the guest ended during %q: %w", strings.TrimSpace(commands), err)
	}
	return output, code, err
}

// Must is Do for commands that must end with 0; otherwise it fails the test. It returns what they wrote.
func (g *Guest) Must(commands string) string {
	g.t.Helper()
	output, code, err := g.Do("set -e\n" + commands)
	if err != nil {
		g.t.Fatal(err)
	}
	if code != 0 {
		g.t.Fatalf("in the guest this ended with %d:\n%s\n%s", code, strings.TrimSpace(commands), output)
	}
	return output
}

// End has the guest power off and waits for it.
func (g *Guest) End() error {
	if err := g.Send("end"); err != nil {
		return err
	}
	output, code, err := g.Wait()
	if err == nil && code != 0 {
		err = fmt.Errorf("the guest's script ended with %d:\n%s", code, tail(output, 30))
	}
	return err
}
