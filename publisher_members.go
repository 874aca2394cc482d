package buffstreams

import "github.com/buffstreams/watermill-buffstreams/route"

// pinned tells whether each address of a route gets every message: what one lacks is nothing for another.
func pinned(r route.Route) bool { return r.Policy == route.All && len(r.Groups) == 0 }

// groupsOf returns the groups of a route, each as a route of its own.
func groupsOf(r route.Route) []route.Route {
	switch {
	case r.Policy != route.All:
		return []route.Route{r}
	case len(r.Groups) > 0:
		groups := make([]route.Route, len(r.Groups))
		for i, g := range r.Groups {
			groups[i] = g
			groups[i].Name = r.Name
		}
		return groups
	}
	groups := make([]route.Route, 0, len(r.Addresses))
	for _, m := range membersOf(r) {
		groups = append(groups, route.Route{Addresses: []string{m.Address}, Attributes: r.Attributes, Name: r.Name})
	}
	return groups
}

// membersOf returns the addresses of a route, each once however it is spelled.
func membersOf(r route.Route) (members []route.Member) {
	seen := map[string]bool{}
	for _, m := range r.Members() {
		if address := canonical(m.Address); !seen[address] {
			seen[address] = true
			members = append(members, m)
		}
	}
	return members
}

// canonical is an address as all of its spellings have it. What is no address stays as it is.
func canonical(address string) string {
	t, err := parseAddress(address)
	if err != nil {
		return address
	}
	return formatAddress(t.Canonical())
}

// isAt tells whether two targets of routes are at the same address.
func (t *target) isAt(o *target) bool { return t.Address == o.Address && t.ServerName == o.ServerName }
