package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"culvert/crypto"
	"culvert/server"
)

const (
	defaultConfigDir = "/etc/culvert"
	// joinTime is how long one endpoint of a server may take to answer.
	joinTime = 20 * time.Second
	// joinPatience is after how long whoever waits is told so.
	joinPatience = 3 * time.Second
)

func (p *program) join() *cobra.Command {
	var name, dir string
	var stay bool
	cmd := &cobra.Command{
		Use:   "join [LINK]",
		Short: "join a server by an invitation",
		Long: `Usage: culvert join [-] [--name NAME] [--dir DIR] [--no-up]
       culvert join LINK

Joins the server that an invitation is from ("culvert invite" printed it): makes a key on this machine, DIR/NAME.key (mode 0600), which
never leaves it; has the server take its public half; writes DIR/NAME.yaml and starts it, as "culvert up" does. Addresses, routes and DNS
come from the server each time. Without LINK, or with "-", it is asked for at a terminal, or read from the input, where other users and the
shell's history do not see it; prefer that. A failure leaves neither file behind, with one exception: where the server was asked and its answer was lost it may have taken the
key, which is kept, and used again by the next join with the same link.

  --name NAME   of the tunnel and the instance, up to 15 characters; otherwise the first part of the server's name
  --dir DIR     where the files go, ` + defaultConfigDir + ` otherwise
  --no-up       only write the files
`,
		Args: needArgs("[LINK]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := strings.Join(args, "")
			if text == "" || text == "-" {
				if p.interactive() {
					fmt.Fprint(p.stderr, "paste the link of the invitation: ")
				}
				line, err := bufio.NewReader(io.LimitReader(p.stdin, server.MaxLink+2)).ReadString('\n')
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("cannot read the invitation: %w", err)
				}
				text = strings.TrimSpace(line)
			}
			link, err := server.ParseLink(text)
			if err != nil {
				return hint(err, "copy the whole line that culvert invite printed, or ask for another")
			}
			defer link.Secret.Zero()
			if name == "" {
				name = tunnelNameFor(link.Endpoints[0])
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			path, err := p.joinAs(ctx, link, dir, name)
			if err != nil || stay {
				return err
			}
			if ctx.Err() != nil {
				return hint(context.Cause(ctx), "the machine has joined; culvert up %s starts it", path)
			}
			stop()
			if err := p.detach(nil, "up", path); err != nil {
				return hint(err, "the files are written; culvert up %s tries again", path)
			}
			fmt.Fprintf(p.stderr, "culvert: %[1]s is up: culvert status %[1]s shows it, culvert down %[1]s ends it, culvert up %[2]s starts it again\n", name, path)
			if p.interactive() {
				return p.signInAfter(name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "")
	cmd.Flags().StringVar(&dir, "dir", defaultConfigDir, "")
	cmd.Flags().BoolVar(&stay, "no-up", false, "")
	return cmd
}

// tunnelNameFor is the name of a tunnel to the server at an endpoint: the first label of its name.
func tunnelNameFor(endpoint string) string {
	const otherwise = "culvert0"
	host := endpoint[:strings.LastIndexByte(endpoint, ':')]
	label, _, _ := strings.Cut(host, ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || !validTunnelName(label) {
		return otherwise
	}
	return label
}

// validTunnelName is stricter than a file need be: the name is part of paths as well.
func validTunnelName(name string) bool {
	if name == "" || len(name) > 15 || name == "all" || name == "default" {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '-' || c == '.'):
		default:
			return false
		}
	}
	return true
}

// joinAs enrols with a key of its own and returns the file it has written.
func (p *program) joinAs(ctx context.Context, link *server.Link, dir, name string) (path string, err error) {
	if !validTunnelName(name) {
		return "", fmt.Errorf("%q cannot be the name of a tunnel here: use 1 to 15 of a-z A-Z 0-9 _ - ., a letter, digit or _ first", name)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", permissionHint(err)
	}
	path = filepath.Join(dir, name+".yaml")
	if _, err := os.Lstat(path); err == nil {
		return "", thereAlready(path, name)
	}
	key, err := makeJoinKey(dir, name, link)
	if err != nil {
		return "", err
	}
	defer key.private.Zero()
	host, _ := os.Hostname()
	answered := p.sayAfter(joinPatience, fmt.Sprintf("no answer from %s yet; each address is given %v", strings.Join(link.Endpoints, ", "), joinTime))
	answer, asked, err := enrolAt(ctx, link, key.private.Public(), host)
	answered()
	switch _, refused := errors.AsType[*refusal](err); {
	case err == nil:
	case refused, !asked && !key.again:
		return "", errors.Join(err, key.remove())
	default:
		return "", hint(err, "the server may have taken the key, so %s is kept: run the same command with the same link again. "+
			"A server that took it answers that for %v; later, if its culvert client list has this machine, write a file for the key by hand (docs/server.md), "+
			"and if not, remove it and %s", key.path, server.Linger, key.note)
	}
	// From here on the server knows the key, which is therefore kept whatever happens.
	if err := writeNew(path, []byte(clientFileText(link, name, &answer))); err != nil {
		return "", hint(err, "the server has taken the key in %s; write a file for it by hand (docs/server.md)", key.path)
	}
	if err := key.taken(); err != nil {
		return "", hint(err, "the machine has joined; culvert up %s starts it", path)
	}
	fmt.Fprintf(p.stderr, "culvert: joined; %s\n", path)
	return path, nil
}

// sayAfter tells whoever waits why, unless it is stopped before.
func (p *program) sayAfter(patience time.Duration, text string) (stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	var saying sync.WaitGroup
	saying.Go(func() {
		if <-ctx.Done(); errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fmt.Fprintf(p.stderr, "culvert: %s\n", text)
		}
	})
	return func() { cancel(); saying.Wait() }
}

// thereAlready refuses to write over a file of a machine that has joined before.
func thereAlready(path, name string) error {
	base := strings.TrimSuffix(path, filepath.Ext(path))
	return hint(fmt.Errorf("%s is there already", path),
		"choose another name with --name; or, where this machine is to join that server anew: culvert down %s; rm %[2]s.yaml %[2]s.key", name, base)
}

// clientFileText is the file of a client of a server, and of the others that it was told of.
func clientFileText(link *server.Link, name string, answer *server.EnrolAnswer) string {
	mode := ""
	if answer.Frames {
		mode = "    mode: tap\n"
	}
	text := fmt.Sprintf(`version: 1
tunnels:
  %q:
%s    private_key_file: %q
    peers:
      server:
        public_key: %q
        endpoints: [%s]
        pull: true                     # addresses, routes and DNS come from the server
`, name, mode, name+".key", link.ServerKey.Base64(), quotedList(link.Endpoints))
	for i, o := range othersThan(link.ServerKey, answer.Others) {
		text += fmt.Sprintf(`      server%d:                          # used while none before it answers
        public_key: %q
        endpoints: [%s]
        pull: true
`, i+2, o.Key.Base64(), quotedList(o.Endpoints))
	}
	return text
}

// othersThan leaves a server out that names itself.
func othersThan(key crypto.PublicKey, others []server.OtherServer) []server.OtherServer {
	return slices.DeleteFunc(slices.Clone(others), func(o server.OtherServer) bool { return o.Key == key })
}

func quotedList(texts []string) string {
	quoted := make([]string, 0, len(texts))
	for _, s := range texts {
		quoted = append(quoted, strconv.Quote(s))
	}
	return strings.Join(quoted, ", ")
}
