# Perl's numbers, texts and regular expressions.
use strict;
use warnings;

my ($sum, @values) = (0);
my $state = 2026;
for my $i (1 .. 5000) {
    $state = ($state * 1103515245 + 12345) % 4294967296;
    push @values, $state / 65536 * sin($i) + sqrt($i) * exp(-$i / 1000) - log($i);
}
$sum += $_ for @values;
printf "%.17g %s %d\n", $sum, $sum, $sum;
printf "%.17g\n", abs(atan2($values[5], $values[6])) ** 1.5;
my @sorted = sort { $a <=> $b } grep { $_ == $_ } @values;
printf "%.15g %.15g %.15g\n", @sorted[0, 2500, -1];
my $checksum = unpack("%64C*", pack("d*", @sorted));
print "$checksum ", unpack("H*", pack("dfqNvw", 0.1, 0.1, -5, 77, 78, 300000)), "\n";
print 18446744073709551615 + 0, " ", 18446744073709551615 + 1, " ", 9223372036854775807 * 3, " ", 7 ** 30, " ", -7 % 3, "\n";
print int(1e15 / 7), " ", 1e15 / 7, " ", 0.1 + 0.2 - 0.3, " ", 1e308 * 10, " ", 9**9**9 - 9**9**9, "\n";
print join(",", map { sprintf "%.3e", $_ } @sorted[100 .. 110]), "\n";
open my $file, "<", "text" or die;
local $/;
my $text = <$file>;
my %count;
$count{lc $1}++ while $text =~ /\b([A-Za-z]\w{4,})\b/g;
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print scalar(@words), " ", join(" ", map { "$_=$count{$_}" } @words[0 .. 9]), "\n";
(my $changed = $text) =~ s/(\d+)/$1 * 3 + 1/ge;
print unpack("%32C*", $changed), " ", length $changed, " ", ($changed =~ tr/a-y/b-z/), "\n";
print scalar(grep { !($_ & ($_ - 1)) } 1 .. 70000), " ", join(" ", map { $_ << 3 ^ $_ >> 2 } 100 .. 110), "\n";
