// Package peers has everything that the comparison measures, this library included, behind one small interface: a
// receiving end that enters what arrives into a tally, and a sending end that dials it. Each peer is configured as its
// own documentation says is fastest while it keeps the guarantee that is named beside it.
package peers
