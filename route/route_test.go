package route

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatic_LongestPrefixWins(t *testing.T) {
	s := Static{
		"*": {Name: "all"}, "commands.*": {Name: "commands"}, "commands.orders.*": {Name: "orders"}, "commands.orders.new": {Name: "new"},
	}
	for topic, want := range map[string]string{
		"x": "all", "commands": "all", "commands.": "commands", "commands.a": "commands", "commands.orders.a": "orders",
		"commands.orders.new": "new", "commands.orders.new.a": "orders", "commands.*": "commands", "all.commands.a": "all", "": "all",
	} {
		got, err := s.Resolve(t.Context(), topic)
		require.NoError(t, err)
		require.Equal(t, want, got.Name, topic)
	}
	_, err := Static{"a.*": {}}.Resolve(t.Context(), "b")
	require.ErrorIs(t, err, ErrNoRoute)
}

func TestPrefixes_AskTheResolverOfTheEntry(t *testing.T) {
	failed := errors.New("no")
	p := Prefixes{"a.*": To("a:1"), "a.b.*": Func(func(_ context.Context, topic string) (Route, error) { return Route{Name: topic}, failed })}
	got, err := p.Resolve(t.Context(), "a.x")
	require.NoError(t, err)
	require.Equal(t, []string{"a:1"}, got.Addresses)
	got, err = p.Resolve(t.Context(), "a.b.c")
	require.ErrorIs(t, err, failed)
	require.Equal(t, "a.b.c", got.Name)
	_, err = p.Resolve(t.Context(), "b")
	require.ErrorIs(t, err, ErrNoRoute)
}

// TestRoute_MembersSayWhatIsKnownOfThem: the order of addresses is a priority of Failover alone, and where nothing else is said.
func TestRoute_MembersSayWhatIsKnownOfThem(t *testing.T) {
	r := Route{Addresses: []string{"b:1", "a:1", "b:1", "c:1"}}
	priorities := func() (all []int) {
		for i, m := range r.Members() {
			require.Equal(t, []string{"b:1", "a:1", "c:1"}[i], m.Address)
			all = append(all, m.Priority)
		}
		return all
	}
	require.Equal(t, []int{0, 1, 3}, priorities())
	r.Policy = LeastPending
	require.Equal(t, []int{0, 0, 0}, priorities())
	r.Policy, r.Attributes = Failover, map[string]Attributes{"a:1": {Priority: 7, Weight: 5, ServerName: "a"}}
	require.Equal(t, []int{0, 7, 0}, priorities())
	require.Equal(t, Member{Address: "a:1", Attributes: r.Attributes["a:1"]}, r.Members()[1])
	require.Equal(t, 1, r.Members()[0].Weight, "as nothing is said")
}

func TestRoute_EqualAsASet(t *testing.T) {
	attributes := map[string]Attributes{"a:1": {Priority: 1}}
	r := Route{Addresses: []string{"a:1", "b:1"}, Attributes: attributes}
	require.True(t, r.Equal(Route{Addresses: []string{"b:1", "a:1", "b:1"}, Attributes: attributes}))
	require.False(t, r.Equal(Route{Addresses: []string{"a:1"}, Attributes: attributes}))
	require.False(t, r.Equal(Route{Addresses: []string{"a:1", "b:1"}, Attributes: map[string]Attributes{"a:1": {Priority: 2}}}))
	require.False(t, r.Equal(Route{Addresses: []string{"a:1", "b:1"}, Attributes: attributes, HashKey: "k"}))
	require.False(t, r.Equal(Route{Addresses: []string{"a:1", "b:1"}, Attributes: attributes, Name: "n"}), "messages have another topic")
	require.False(t, r.Equal(Route{Addresses: []string{"a:1", "b:1"}, Attributes: attributes, Policy: RoundRobin}))
	list := Route{Addresses: []string{"a:1", "b:1"}}
	require.False(t, list.Equal(Route{Addresses: []string{"b:1", "a:1"}}), "the order of a list is Failover's priority")
	list.Policy = RoundRobin
	require.True(t, list.Equal(Route{Addresses: []string{"b:1", "a:1"}, Policy: RoundRobin}))
	groups := Route{Policy: All, Groups: []Route{{Addresses: []string{"a:1"}}}}
	require.True(t, groups.Equal(groups.Clone()))
	require.False(t, groups.Equal(Route{Policy: All, Groups: []Route{{Addresses: []string{"b:1"}}}}))
}

// What a Resolver does with a route later changes no clone of it.
func TestRoute_CloneSharesNothing(t *testing.T) {
	some := func() Route {
		return Route{Addresses: []string{"a:1"}, Attributes: map[string]Attributes{"a:1": {Weight: 1}}}
	}
	change := func(r Route) { r.Addresses[0], r.Attributes["a:1"] = "b:1", Attributes{Weight: 2} }
	flat := some()
	deep := Route{Policy: All, Groups: []Route{some(), some()}}
	flatClone, deepClone := flat.Clone(), deep.Clone()
	change(flat)
	change(deep.Groups[0])
	deep.Groups[1] = flat
	require.Equal(t, some(), flatClone)
	require.Equal(t, []Route{some(), some()}, deepClone.Groups)
}

func TestRoute_Validate(t *testing.T) {
	a := []string{"a:1"}
	for name, r := range map[string]Route{
		"no address":       {},
		"policy":           {Addresses: a, Policy: policies},
		"hash of nothing":  {Addresses: a, Policy: Hash},
		"hash in a group":  {Policy: All, Groups: []Route{{Addresses: a, Policy: Hash}}},
		"negative policy":  {Addresses: a, Policy: -1},
		"groups and not":   {Addresses: a, Policy: All, Groups: []Route{{Addresses: a}}},
		"groups without":   {Policy: Hash, Groups: []Route{{Addresses: a}}},
		"empty group":      {Policy: All, Groups: []Route{{}}},
		"group of all":     {Policy: All, Groups: []Route{{Addresses: a, Policy: All}}},
		"group with name":  {Policy: All, Groups: []Route{{Addresses: a, Name: "n"}}},
		"TLS and not":      {Addresses: []string{"tls://a:1", "b:1"}},
		"negative weights": {Addresses: a, Attributes: map[string]Attributes{"a:1": {Weight: -1}}},
	} {
		require.Error(t, r.Validate(), name)
	}
	require.NoError(t, Route{Addresses: []string{"tls://a:1", "tls://b:1", "unix:///c"}}.Validate())
	require.NoError(t, Route{Policy: All, Groups: []Route{{Addresses: a, Policy: Hash, HashKey: "k"}}}.Validate())
}
