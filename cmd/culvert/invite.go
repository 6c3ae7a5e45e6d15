package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"culvert/control"
	"culvert/server"
)

func (p *program) invite() *cobra.Command {
	var group, tunnel string
	var expires time.Duration
	var pic picture
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "invite a client to a server",
		Long: `Usage: culvert invite NAME [--group GROUP] [--tunnel TUNNEL] [--expires 24h] [--qr[=false]] [--png FILE] [--svg FILE]

Makes an invitation for a client that will be called NAME and prints its link. The client runs "culvert join -" and pastes it. The link
is good for one client and one use, until its time is up or "culvert client revoke NAME"; whoever has it can join as NAME, so hand it over
in private. It is printed and written nowhere. A second invitation for NAME makes the first one void.

  --group GROUP    the group of the file's "server:" that NAME is in
  --tunnel TUNNEL  where several tunnels that run are servers: TUNNEL, or INSTANCE/TUNNEL
  --expires 24h    how long the link is good for, up to a year
  --qr             print a QR code of it as well, as is done at a terminal that is wide enough; --qr=false leaves it out
  --png, --svg     write the code to a new file instead (mode 0600)
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := p.askServer(tunnel, control.ClientsRequest{Do: control.DoInvite, Name: args[0], Group: group, Expires: expires.Seconds()})
			if err != nil {
				return err
			}
			if err := p.writeSecret(answer.Link); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "culvert: good until %s, for one use; on the client: culvert join\n", answer.Expires.Local().Format(time.DateTime))
			pic.choose(cmd, p.stdout, answer.Link)
			return pic.draw(p.stdout, answer.Link)
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "")
	cmd.Flags().StringVar(&tunnel, "tunnel", "", "")
	cmd.Flags().DurationVar(&expires, "expires", 24*time.Hour, "")
	pic.flags(cmd)
	return cmd
}

// serverOf finds the running instance with a tunnel that clients join: where is TUNNEL, INSTANCE/TUNNEL, or "" where there is one alone.
func (p *program) serverOf(where string) (instance, tunnel string, err error) {
	instance, tunnel, both := strings.Cut(where, "/")
	if both {
		return instance, tunnel, nil
	}
	all, err := p.instances(context.Background(), nil)
	if err != nil && len(all) == 0 {
		return "", "", err
	}
	var found []string
	for _, in := range all {
		for _, t := range in.Tunnels {
			if t.Server && (where == "" || t.Interface == where) {
				instance, tunnel = in.Name, t.Interface
				found = append(found, in.Name+"/"+t.Interface)
			}
		}
	}
	switch len(found) {
	case 0:
		if where != "" {
			return "", "", fmt.Errorf("no tunnel %s that clients join is running", where)
		}
		return "", "", hint(errors.New("no tunnel that clients join is running"), "it needs \"server:\" in its file, and culvert up FILE")
	case 1:
		return instance, tunnel, nil
	}
	return "", "", hint(errors.New("several tunnels that clients join are running"), "say which with --tunnel, one of %s", strings.Join(found, ", "))
}

// askServer asks the daemon of a server.
func (p *program) askServer(where string, r control.ClientsRequest) (*control.ClientsAnswer, error) {
	instance, tunnel, err := p.serverOf(where)
	if err != nil {
		return nil, err
	}
	r.Tunnel = tunnel
	p.locate(instance)
	answer, err := p.ask(instance).Clients(context.Background(), r)
	if err != nil {
		if err = p.callError(instance, err); strings.Contains(err.Error(), server.ErrTaken.Error()) {
			err = hint(err, "culvert client revoke %s ends that one, and its addresses stay with the name; or choose another name", r.Name)
		}
		return nil, err
	}
	return answer, nil
}
