package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
	"culvert/server"
)

func (p *program) signin() *cobra.Command {
	var tunnel, codeFile string
	cmd := &cobra.Command{
		Use:   "signin NAME",
		Short: "sign in where a server demands it",
		Long: `Usage: culvert signin NAME [--code-file FILE|-] [--tunnel TUNNEL]

Signs in to the server that a tunnel of the running instance NAME pulls from, where that demands it: asks for the code of your
authenticator, or says which page to open and waits until that is done. Nothing passes before. Who is signed in already is told until when; a
--code-file renews it.

  --code-file FILE   where there is no terminal: the code is FILE's first line; with "-" that of the input. A code never goes into an argument,
                     which others on the machine see
  --tunnel TUNNEL    where several tunnels of NAME pull from servers
`,
		Args: needArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			s := signingIn{p: p, instance: args[0], tunnel: tunnel}
			if codeFile != "" {
				code, err := p.readCode(codeFile)
				if err != nil {
					return err
				}
				s.codes = func() (string, error) { return code, nil }
			} else if p.interactive() {
				s.ask()
			}
			p.locate(s.instance)
			first, err := s.begin(signInPatience)
			if err != nil {
				return err
			}
			if first == nil {
				fmt.Fprintf(p.stderr, "culvert: %s: the server asks for no sign-in\n", args[0])
				return nil
			}
			if first.State == control.SignInDone && codeFile != "" {
				return s.renew()
			}
			return s.run(first)
		},
	}
	cmd.Flags().StringVar(&tunnel, "tunnel", "", "")
	cmd.Flags().StringVar(&codeFile, "code-file", "", "")
	return cmd
}

const (
	// signInPatience is how long the server may take to say what it asks for.
	signInPatience = 15 * time.Second
	// upPatience is the same once a tunnel has been started at a terminal: somebody waits for the prompt.
	upPatience = 5 * time.Second
	// signInTries is how many wrong codes may be typed before the command ends.
	signInTries = 3
	// maxCodeFile bounds what is read of a file with a code.
	maxCodeFile = 128
)

// interactive reports whether somebody can be asked.
func (p *program) interactive() bool {
	f, ok := p.stdin.(*os.File)
	return ok && isTerminal(f) && isTerminal(p.stderr)
}

// readCode reads the first line of a file, or with "-" of the input.
func (p *program) readCode(path string) (string, error) {
	from := p.stdin
	if path != "-" {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("cannot read the code: %w", err)
		}
		defer f.Close()
		from = f
	}
	line, err := bufio.NewReader(io.LimitReader(from, maxCodeFile)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("cannot read the code: %w", err)
	}
	code := strings.Join(strings.Fields(line), "")
	if code == "" || len(code) > server.MaxCode {
		return "", errors.New("there is no code in what was read")
	}
	return code, nil
}

// signInAfter signs in to what was just started, where that is asked for.
func (p *program) signInAfter(instance string) error {
	s := signingIn{p: p, instance: instance}
	s.ask()
	first, err := s.begin(upPatience)
	if err != nil {
		fmt.Fprintf(p.stderr, "culvert: %s is started, and no server has answered yet; culvert status %[1]s shows when one has\n", instance)
		return nil
	}
	if first == nil {
		return nil
	}
	return hint(s.run(first), "the tunnel is up and carries nothing; culvert signin %s tries again", instance)
}

// pullsAny reports whether a tunnel of a file is the client of a server.
func pullsAny(file *config.File) bool {
	for i := range file.Tunnels {
		if pulledFrom(&file.Tunnels[i]) >= 0 {
			return true
		}
	}
	return false
}

// signingIn is one user's sign-in.
type signingIn struct {
	p                *program
	instance, tunnel string
	codes            func() (string, error) // gives a code; nil where nobody can be asked
	again            bool                   // it may be asked for another one
}

// ask has codes come from the terminal.
func (s *signingIn) ask() {
	in := bufio.NewReader(s.p.stdin)
	s.again = true
	s.codes = func() (string, error) {
		fmt.Fprintf(s.p.stderr, "code of your authenticator for %s: ", s.instance)
		line, err := in.ReadString('\n')
		if err != nil && line == "" {
			fmt.Fprintln(s.p.stderr)
			return "", errors.New("no code was given")
		}
		code := strings.Join(strings.Fields(line), "")
		if code == "" || len(code) > server.MaxCode {
			return "", errors.New("no code was given")
		}
		return code, nil
	}
}

func (s *signingIn) send(r control.SignInRequest) (*control.SignIn, error) {
	r.Tunnel = s.tunnel
	answer, err := s.p.ask(s.instance).SignIn(context.Background(), r)
	if err != nil {
		return nil, s.p.callError(s.instance, err)
	}
	return answer, nil
}

// begin waits until the server has said what it asks for; nil where that is nothing.
func (s *signingIn) begin(patience time.Duration) (*control.SignIn, error) {
	const every = 100 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(every) {
		state, err := s.send(control.SignInRequest{})
		if state != nil || err != nil {
			return state, err
		}
		in, err := s.p.ask(s.instance).Status(context.Background())
		if err != nil {
			return nil, s.p.callError(s.instance, err)
		}
		for i := range in.Tunnels {
			if t := &in.Tunnels[i]; t.Pulled && (s.tunnel == "" || t.Interface == s.tunnel) {
				return nil, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, hint(errors.New("the server has not said yet what it asks for"), "culvert status %s shows whether it is reached", s.instance)
		}
	}
}

// renew signs in again by a code while the last sign-in lasts.
func (s *signingIn) renew() error {
	code, err := s.codes()
	if err != nil {
		return err
	}
	state, err := s.send(control.SignInRequest{Code: code})
	if err == nil && state != nil && state.Note != "" {
		err = fmt.Errorf("the server refuses: %s", state.Note)
	}
	if err != nil {
		return err
	}
	return s.run(state)
}

// run goes on until the user is signed in, or it cannot be gone on.
func (s *signingIn) run(state *control.SignIn) (err error) {
	tried, shown := 0, ""
	for {
		switch {
		case state == nil:
			return nil
		case state.State == control.SignInDone:
			fmt.Fprintf(s.p.stderr, "culvert: signed in until %s\n", state.Until.Local().Format(time.DateTime))
			return nil
		case state.State == control.SignInCode && state.Note == server.NoAuthenticator:
			return hint(errors.New(state.Note), "on the server: culvert client totp NAME, with the name that this client has there; then, here: culvert signin %s", s.instance)
		case state.State == control.SignInCode:
			if state.Note != "" && tried > 0 && (!s.again || tried == signInTries) {
				return fmt.Errorf("the server refuses: %s", state.Note)
			}
			if state.Note != "" {
				fmt.Fprintf(s.p.stderr, "culvert: %s\n", state.Note)
			}
			if s.codes == nil {
				return hint(errors.New("the server waits for a code, and there is no terminal to ask at"), "give it with --code-file")
			}
			code, err := s.codes()
			if err != nil {
				return err
			}
			tried++
			if state, err = s.send(control.SignInRequest{Code: code}); err != nil {
				return err
			}
		case state.State == control.SignInBegin:
			if shown != "" || tried > 0 {
				return fmt.Errorf("the server refuses: %s", dash(state.Note))
			}
			tried++
			if state, err = s.send(control.SignInRequest{Begin: true}); err != nil {
				return err
			}
		default:
			if text := visitText(state); text != shown {
				shown = text
				fmt.Fprintf(s.p.stderr, "culvert: to sign in, %s\n", text)
			}
			time.Sleep(500 * time.Millisecond)
			if state, err = s.send(control.SignInRequest{}); err != nil {
				return err
			}
		}
	}
}

// visitText says what the user is to do at a provider.
func visitText(s *control.SignIn) string {
	text := fmt.Sprintf("open %s and enter %s", s.URL, s.Code)
	if s.Complete != "" && s.Complete != s.URL {
		text += ", or open " + s.Complete
	}
	return text
}

// signInText words a sign-in for the status.
func signInText(instance string, s *control.SignIn) string {
	why := ""
	if s.Note != "" {
		why = "; " + s.Note
	}
	switch s.State {
	case control.SignInDone:
		return "done, until " + s.Until.Local().Format(time.DateTime)
	case control.SignInVisit:
		return "waits for sign-in (" + visitText(s) + ")" + why
	}
	return "waits for sign-in (culvert signin " + instance + ")" + why
}
