package model

// Text is the ID for people: that of a route, a rule, a NAT or a redirect says in words what its place in the ID says, and leaves out what goes
// without saying.
func (id ID) Text() string {
	words := id.Words()
	netns := ""
	if id.Netns() != "" {
		netns = " in " + id.Netns()
	}
	switch id.Kind() {
	case KindRoute:
		text := "route " + words[2]
		if words[1] != "254" {
			text += " table " + words[1]
		}
		if words[3] != "0" {
			text += " metric " + words[3]
		}
		return text + netns
	case KindRule:
		return "rule " + words[2] + " ipv" + words[1] + netns
	case KindNAT:
		return "nat " + words[1] + netns
	case KindFirewall:
		return "firewall " + words[1] + netns
	case KindFilter:
		if words[2] == FilterPriority {
			return "filter " + words[0] + " " + words[1]
		}
	case KindSysctl:
		return "sysctl " + words[1] + netns
	}
	return string(id)
}
