package mutants

func outboxProbe(run string) probe { return probe{"storage/outbox", "^" + run + "$", ""} }

// unknownStorageMutants are mistakes in storage/ that no test noticed until it was asked about each.
var unknownStorageMutants = []mutant{
	// Relocation.
	{
		"copies that a crash left are dropped, but not from the disk", "storage/outbox/index.go",
		"changed = append(changed, f)", "_ = f",
		outboxProbe("TestRelocation_CopiesOfACrashDoNotComeBack"),
	},
	{
		"a relocation stops until the next append", "storage/outbox/reclaim.go",
		"o.poke() // there may be more to copy", "",
		outboxProbe("TestRelocation_GoesOnByItself"),
	},
	{
		"damage that is met when a summary is removed ends the process", "storage/outbox/meta.go",
		"func (m metaStore) remove(key string) (err error) {\n\tdefer recoverDamage(&err)\n",
		"func (m metaStore) remove(key string) (err error) {\n",
		outboxProbe("TestMetaStore_ReturnsPanicsAsErrors"),
	},
}
