"""A text to compare models on where none was given: prose, dialogue, numbers, code and other scripts."""

TEXT = """\
The ferry left the harbour a little after six, while the lamps along the quay were still lit. Two fishermen who had
missed the tide sat on an upturned boat and argued, without much heat, about the price of diesel. By noon the wind had
gone round to the west and everybody on deck had moved to the other side.

"How far is it to the island?" the girl asked. "Seventeen miles," said the mate, "if you are a gull. For us, nearer
twenty-one." She wrote both numbers down and subtracted: 21 - 17 = 4. Then she divided 4 by 21 and got 0.19, or about
one part in five.

def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2

Water boils at 100 °C at sea level, but at 3,000 metres it boils near 90 °C, so that beans take longer to cook there.
A pressure cooker raises the boiling point instead of the fire. La mer était calme, et le capitaine ne disait rien.
Die Brücke über den Fluss wurde 1893 gebaut und 1951 erneuert. Корабль пришёл вечером. 船は夜に着いた。

{"name": "Aurora", "tonnage": 412.5, "crew": ["Ada", "Björn", "Chidi"], "built": 1987, "active": true}
SELECT port, COUNT(*) FROM arrivals WHERE day >= '2024-03-01' GROUP BY port ORDER BY 2 DESC LIMIT 5;
"""
