package model

// Needs are the things an object needs to be there, as far as its fields tell: what goes first when something is taken down.
func (o *Object) Needs(s *System) []ID {
	var out []ID
	add := func(id ID) {
		if _, ok := s.Objects[id]; ok && id != o.ID {
			out = append(out, id)
		}
	}
	link := func(r Ref) {
		if r != "" {
			add(LinkID(r))
		}
	}
	if n := o.ID.Netns(); n != "" {
		add(NetnsID(n))
	}
	link(o.ID.Link())
	switch o.ID.Kind() {
	case KindLink:
		link(o.Fields["parent"].Link())
	case KindAttachment:
		master := o.Fields["master"].Link()
		link(master)
		add(ProcessID(teamdName(master)))
	case KindQdisc:
		if parent := o.ID.Words()[1]; parent != "root" && parent != "ingress" {
			add(ClassID(o.ID.Link(), parent))
		}
	case KindClass:
		add(QdiscID(o.ID.Link(), "root"))
	case KindFilter:
		add(QdiscID(o.ID.Link(), o.ID.Words()[1]))
		to := o.Fields["redirect"].Link()
		link(to)
		add(QdiscID(to, "root"))
	case KindRoute:
		link(o.Fields["link"].Link())
	case KindProcess:
		if n := string(o.Fields["netns"]); n != "" {
			add(NetnsID(n))
		}
		link(o.Fields["link"].Link())
	}
	return out
}

// Variant is what [Describe] needs to know of an object beside its kind.
func (o *Object) Variant(s *System) string {
	switch o.ID.Kind() {
	case KindLink:
		return string(o.Fields["type"])
	case KindQdisc, KindClass:
		return string(o.Fields["kind"])
	case KindAttachment:
		if m := s.Objects[LinkID(o.Fields["master"].Link())]; m != nil {
			return string(m.Fields["type"])
		}
	}
	return ""
}
