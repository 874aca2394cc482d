package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A flow was forgotten with its second connection and opened on a third when the first, which had lost it to the
// second, ends. The node keeps the flow (TestStream_LateTerminateForgetsNoSuccessor in package receiver), and so must
// the model.
func TestModel_LateDetachForgetsNoSuccessor(t *testing.T) {
	l := &life{flows: map[*stream]*inflow{}}
	fl, rt := &stream{}, &rtopic{life: l}
	open := func(on ...*conn) *inflow { // the last one has it
		in := &inflow{flow: fl, rt: rt, conn: on[len(on)-1]}
		for _, c := range on {
			c.ins[1] = in
		}
		l.flows[fl] = in
		return in
	}
	first, second, third := &conn{ins: map[uint64]*inflow{}}, &conn{ins: map[uint64]*inflow{}}, &conn{ins: map[uint64]*inflow{}}
	open(first, second)
	l.detached(second)
	require.Empty(t, l.flows, "the topic never had a group")

	in := open(third)
	l.detached(first)
	require.Same(t, in, l.flows[fl])
}

// Groups without a name had taken all of a life's places before a declared group came: the topic gave no credit ever
// after (found as seed 42968).
func TestModel_NamelessGroupsLeaveRoomForNamedOnes(t *testing.T) {
	single := groupPlan{}
	plan := &topicPlan{groups: []groupPlan{{name: "declared"}, single}}
	rt, w := &rtopic{plan: plan}, &world{}
	for range maxGroups - 1 {
		require.NotNil(t, w.groupFor(&seat{rt: rt, plan: &single}))
	}
	require.Nil(t, w.groupFor(&seat{rt: rt, plan: &single}), "the last place is the declared group's")
	require.NotNil(t, w.groupFor(&seat{rt: rt, plan: &plan.groups[0]}))
}
