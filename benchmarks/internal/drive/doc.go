// Package drive puts a peer under load, in this process or with its receiving end in another, and measures what
// arrives.
//
// Every message is counted at the receiving end. A turn ends when all that were sent are there, and fails if one is
// missing, damaged, repeated or, where the peer keeps order, overtaken.
package drive
