package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"culvert/control"
	"culvert/crypto"
)

func (p *program) client() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "the clients of a server",
		Long: `Usage: culvert client list [--json]
       culvert client show NAME [--json]
       culvert client add NAME --wireguard [--group GROUP] [--qr[=false]] [--png FILE] [--svg FILE]
       culvert client add NAME --public-key KEY [--wireguard] [--group GROUP]
       culvert client totp NAME [--qr[=false]] [--png FILE] [--svg FILE]
       culvert client revoke NAME

The clients of a tunnel with "server:" in its file. All take --tunnel TUNNEL (or INSTANCE/TUNNEL) where several run.

  list    who has joined, and who is invited
  show    one of them
  add     a client for an app that speaks WireGuard: prints a wg-quick file with a key made for it, which is kept nowhere: on a phone the
          app scans the QR code; for a file (umask 077; culvert client add NAME --wireguard > NAME.conf)
          with --public-key a client with a key of its own: a culvert that has joined another server, say
  totp    makes a new secret for NAME's authenticator and prints its otpauth:// link, once; one from before is void. NAME's group has
          "sign_in: {totp: true}"; NAME may be only invited yet
  revoke  ends the client's session at once; from then on it gets no answer. An invitation of that name is void, too. Its addresses stay
          with the name until the pool has no others, so that inviting it again gives it the same ones

add and totp print a QR code as well with --qr, and at a terminal that is wide enough; --qr=false leaves it out. --png and --svg write it to a
new file instead (mode 0600).
`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{"client needs list, show, add, totp or revoke", cmd.CommandPath()}
			}
			return &usageError{fmt.Sprintf("there is no command client %q", args[0]), cmd.CommandPath()}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	var where string
	cmd.PersistentFlags().StringVar(&where, "tunnel", "", "")
	for _, sub := range []*cobra.Command{p.clientList(&where), p.clientShow(&where), p.clientAdd(&where), p.clientTOTP(&where), p.clientRevoke(&where)} {
		sub.Long = cmd.Long
		sub.DisableFlagsInUseLine = true
		cmd.AddCommand(sub)
	}
	return cmd
}

func (p *program) clientList(where *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Args: needArgs(), RunE: func(*cobra.Command, []string) error {
		answer, err := p.askServer(*where, control.ClientsRequest{Do: control.DoList})
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.stdout, struct {
				Clients     []control.ServerClient `json:"clients"`
				Invitations []control.Invited      `json:"invitations"`
			}{append([]control.ServerClient{}, answer.Clients...), append([]control.Invited{}, answer.Invitations...)})
		}
		return writeClients(p.stdout, answer, time.Now())
	}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

func (p *program) clientShow(where *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show NAME", Args: needArgs("NAME"), RunE: func(_ *cobra.Command, args []string) error {
		answer, err := p.askServer(*where, control.ClientsRequest{Do: control.DoList, Name: args[0]})
		if err != nil {
			return err
		}
		for i := range answer.Clients {
			if c := &answer.Clients[i]; c.Name == args[0] {
				if asJSON {
					return writeJSON(p.stdout, c)
				}
				return writeClient(p.stdout, c, time.Now())
			}
		}
		for i := range answer.Invitations {
			if c := &answer.Invitations[i]; c.Name == args[0] {
				if asJSON {
					return writeJSON(p.stdout, c)
				}
				return writeInvited(p.stdout, c)
			}
		}
		return hint(fmt.Errorf("there is no client %s", args[0]), "culvert client list has all")
	}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

func (p *program) clientRevoke(where *string) *cobra.Command {
	return &cobra.Command{Use: "revoke NAME", Args: needArgs("NAME"), RunE: func(_ *cobra.Command, args []string) error {
		_, err := p.askServer(*where, control.ClientsRequest{Do: control.DoRevoke, Name: args[0]})
		return err
	}}
}

func (p *program) clientAdd(where *string) *cobra.Command {
	var wireGuard bool
	var group, publicKey string
	var pic picture
	cmd := &cobra.Command{Use: "add NAME", Args: needArgs("NAME"), RunE: func(cmd *cobra.Command, args []string) error {
		switch {
		case !wireGuard && publicKey == "":
			return &usageError{"client add is for apps that speak WireGuard (--wireguard) and for keys that are there already (--public-key); " +
				"a culvert is invited with culvert invite", cmd.CommandPath()}
		case publicKey != "":
			key, err := crypto.ParsePublicKey(publicKey)
			if err != nil {
				return fmt.Errorf("--public-key: %w", err)
			}
			_, err = p.askServer(*where, control.ClientsRequest{Do: control.DoAdd, Name: args[0], Group: group, Key: key, WireGuard: wireGuard})
			return err
		}
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			return err
		}
		defer key.Zero()
		answer, err := p.askServer(*where, control.ClientsRequest{Do: control.DoAdd, Name: args[0], Group: group, Key: key.Public(), WireGuard: true})
		if err != nil {
			return err
		}
		if answer.Setup == nil {
			return errors.New("the daemon's answer does not say what the client is to set up")
		}
		text := wgQuickOf(&key, answer.Setup)
		if err := p.writeSecret(strings.TrimSuffix(text, "\n")); err != nil {
			return err
		}
		if answer.Setup.Endpoint == "" {
			fmt.Fprintf(p.stderr, "culvert: warning: the file says nowhere where the server is; add endpoints to \"server:\", or Endpoint to what is printed\n")
		}
		pic.choose(cmd, p.stdout, text)
		return pic.draw(p.stdout, text)
	}}
	cmd.Flags().BoolVar(&wireGuard, "wireguard", false, "")
	cmd.Flags().StringVar(&publicKey, "public-key", "", "")
	cmd.Flags().StringVar(&group, "group", "", "")
	pic.flags(cmd)
	return cmd
}

func (p *program) clientTOTP(where *string) *cobra.Command {
	var pic picture
	cmd := &cobra.Command{Use: "totp NAME", Args: needArgs("NAME"), RunE: func(cmd *cobra.Command, args []string) error {
		answer, err := p.askServer(*where, control.ClientsRequest{Do: control.DoCodes, Name: args[0]})
		if err != nil {
			return err
		}
		if err := p.writeSecret(answer.Link); err != nil {
			return err
		}
		if isTerminal(p.stderr) {
			fmt.Fprintf(p.stderr, "culvert: for an authenticator; shown this once\n")
		}
		pic.choose(cmd, p.stdout, answer.Link)
		return pic.draw(p.stdout, answer.Link)
	}}
	pic.flags(cmd)
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// wgQuickOf is a wg-quick file.
func wgQuickOf(key *crypto.PrivateKey, s *control.ClientSetup) string {
	var b strings.Builder
	line := func(name string, list ...string) {
		if text := strings.Join(list, ", "); text != "" {
			fmt.Fprintf(&b, "%s = %s\n", name, text)
		}
	}
	b.WriteString("[Interface]\n")
	line("PrivateKey", key.Base64())
	line("Address", texts(s.Addresses)...)
	line("DNS", append(texts(s.DNS), s.Search...)...)
	if s.MTU != 0 {
		line("MTU", fmt.Sprint(s.MTU))
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", s.ServerKey.Base64())
	line("Endpoint", s.Endpoint)
	line("AllowedIPs", texts(s.AllowedIPs)...)
	if s.Keepalive != 0 {
		line("PersistentKeepalive", fmt.Sprint(s.Keepalive))
	}
	return b.String()
}

func texts[T fmt.Stringer](list []T) (out []string) {
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// writeClients writes a line for each client, and for each who is invited.
func writeClients(w io.Writer, a *control.ClientsAnswer, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tGROUP\tADDRESSES\tWIRE\tLAST HANDSHAKE\tFROM")
	for i := range a.Clients {
		c := &a.Clients[i]
		last := handshakeAge(c, now)
		if c.SignIn != nil && c.SignIn.Until.IsZero() {
			last += ", not signed in"
		}
		if c.GroupMissing {
			last += ", held: the file has no such group"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, dash(c.Group), dash(strings.Join(texts[netip.Addr](c.Addresses), " ")), c.Wire, last, dash(c.Endpoint))
	}
	for _, i := range a.Invitations {
		fmt.Fprintf(t, "%s\t%s\t-\t-\tinvited until %s\t-\n", i.Name, dash(i.Group), i.Expires.Local().Format(time.DateTime))
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func handshakeAge(c *control.ServerClient, now time.Time) string {
	if c.LatestHandshake.IsZero() {
		return "none since the start"
	}
	return now.Sub(c.LatestHandshake).Truncate(time.Second).String() + " ago"
}

func writeInvited(w io.Writer, i *control.Invited) error {
	_, err := fmt.Fprintf(w, "client %s of %s\n  group: %s\n  invited: until %s, and has not joined\n", i.Name, i.Tunnel, dash(i.Group), i.Expires.Local().Format(time.DateTime))
	return err
}

func writeClient(w io.Writer, c *control.ServerClient, now time.Time) error {
	var b strings.Builder
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %s: %s\n", name, text)
		}
	}
	fmt.Fprintf(&b, "client %s of %s\n", c.Name, c.Tunnel)
	line("group", c.Group)
	line("public key", c.PublicKey.Base64())
	line("wire", c.Wire)
	line("addresses", strings.Join(texts(c.Addresses), ", "))
	line("networks behind it", strings.Join(texts(c.Networks), ", "))
	if c.AnyAddress {
		line("its frames", "may come from any IP address")
	}
	for _, m := range c.May {
		line("may", m)
	}
	line("calls itself", c.Says)
	line("joined", strings.TrimSpace(c.Joined.Local().Format(time.DateTime)+" "+map[bool]string{true: "from " + c.JoinedFrom}[c.JoinedFrom != ""]))
	if !c.Seen.IsZero() && c.LatestHandshake.IsZero() { // otherwise the handshake tells more
		line("last seen", "about "+c.Seen.Local().Format(time.DateTime))
	}
	if s := c.SignIn; s != nil {
		text := "not yet, by " + s.By
		if !s.Until.IsZero() {
			text = "until " + s.Until.Local().Format(time.DateTime) + ", by " + strings.TrimSpace(s.By+" "+s.As)
		}
		line("signed in", text)
	}
	line("latest handshake", handshakeAge(c, now))
	line("endpoint", c.Endpoint)
	line("transfer", fmt.Sprintf("%s received, %s sent", bytesText(c.ReceivedBytes), bytesText(c.SentBytes)))
	_, err := io.WriteString(w, b.String())
	return err
}
