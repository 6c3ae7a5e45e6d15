package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"culvert/setup/model"
)

// files are the paths of a service's own files.
type files struct{ config, adapted, pid, leases, output, record string }

// program is a program that can be supervised.
type program struct {
	pkg string // Debian's package of it
	// arguments adds to those declared what belongs to running it here. It changes declared in place.
	arguments func(declared []string, f files, user string) []string
	// hasControl says that it has a socket below /run/teamd by its device's name.
	hasControl bool
}

var programs = map[string]program{
	"dnsmasq": {pkg: "dnsmasq-base", arguments: dnsmasqArguments},
	"teamd":   {pkg: "libteam-utils", arguments: teamdArguments, hasControl: true},
}

// dnsmasqArguments: the pid file tells when it is ready, its log goes to standard error, and it runs as a user without rights.
func dnsmasqArguments(declared []string, f files, user string) []string {
	declared = slices.DeleteFunc(declared, func(a string) bool { return a == "--pid-file=" })
	return append(declared, "--pid-file="+f.pid, "--log-facility=-", "--user="+user)
}

// teamdArguments: the pid file is not the one in /run/teamd, which teams of one name in two namespaces would share.
func teamdArguments(declared []string, f files, _ string) []string {
	return append(declared, "-p", f.pid, "-l", "stderr", "-U")
}

// teamdKeeping returns a configuration of teamd with the team's MAC address in it.
func teamdKeeping(config model.Value, address string) (model.Value, error) {
	var keys map[string]json.RawMessage
	err := json.Unmarshal([]byte(config), &keys)
	if err == nil && keys == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return "", fmt.Errorf("teamd's configuration is no JSON object: %w", err)
	}
	text, err := json.Marshal(address)
	if err != nil {
		return "", err
	}
	keys["hwaddr"] = text
	if text, err = json.Marshal(keys); err != nil {
		return "", err
	}
	return model.Value(text), nil
}

// command returns the arguments to run what the fields declare.
func command(fields model.Fields, f files, user string) ([]string, error) {
	p, ok := programs[string(fields["program"])]
	if !ok {
		return nil, fmt.Errorf("%q is not a program that is supervised", fields["program"])
	}
	var args []string
	if err := json.Unmarshal([]byte(fields["args"]), &args); err != nil {
		return nil, fmt.Errorf("the arguments are no JSON list of texts: %w", err)
	}
	for i, a := range args {
		if a == model.ConfigArgument {
			args[i] = f.config
		} else if rest, ok := strings.CutSuffix(a, model.LeaseArgument); ok {
			args[i] = rest + f.leases
		}
		if strings.ContainsRune(args[i], 0) {
			return nil, fmt.Errorf("the argument %q holds a zero byte", a)
		}
	}
	return p.arguments(args, f, user), nil
}

// findProgram returns the path of a program that can be supervised.
func findProgram(name string) (string, error) {
	p, ok := programs[name]
	if !ok {
		return "", fmt.Errorf("%q is not a program that is supervised", name)
	}
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/local/sbin/" + name, "/usr/bin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the program %s is not installed (apt-get install %s): %w", name, p.pkg, exec.ErrNotFound)
}
